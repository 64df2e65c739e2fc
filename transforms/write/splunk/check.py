"""What Splunk needs, tried when a person asks: HEC's health, the token, and one event to each index.

HEC looks at an index only with an event that it would index ("Incorrect index", code 7, comes behind every
other fault of an event), and at acknowledgement only with one that it has taken. So one event is sent to
each, by the way of all others, under a source of its own that no search of ours looks at.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.write.answer import decoded
from transforms.write.contract import Outcome, finding
from transforms.write.failure import asked
from transforms.write.over_http.connection import Reply
from transforms.write.splunk.channel import where
from transforms.write.splunk.reply import BUSY, decoder, outcome_of

if TYPE_CHECKING:
    from transforms.write.splunk.destination import Splunk

SOURCE = "grantex-beam-check"
HEALTH_PATH = "health"  # beside "event"
HEALTHY = 17
# An indexer that replicates takes seconds; what takes longer than this is said to be slow.
ACKNOWLEDGED_WITHIN = 8.0
AT_LEAST = 2.0  # for each of many indexes, which are tried one after the other


def check(settings: Splunk) -> Iterator[Finding]:
    """Raises OSError when an authority or certificate cannot be read."""
    health, answered = _health(settings)
    if health is not None:
        yield health
    if not answered:  # by anybody: what else there is to try would find the same
        return
    passed = True
    for found in settings.preflight():
        passed = passed and bool(found.passed)
        yield found
    if passed:
        wait = max(AT_LEAST, ACKNOWLEDGED_WITHIN / len(settings.indexes.names))
        for index in settings.indexes.names:
            yield _event(replace(settings, index=index, index_by_type=(), acknowledge_wait=wait))


def _health(settings: Splunk) -> tuple[Finding | None, bool]:
    """HEC's own page, which is for anybody, and whether anybody answered; nothing is found out of a receiver
    that has no such page."""
    connection, _ = settings.connect()
    target = connection.beside(HEALTH_PATH, {}, "GET")
    found: list[int | None] = []

    def judge(reply: Reply) -> Outcome | None:
        said = decoded(decoder.decode, reply.body)  # whose codes are of this page alone
        found.append(said.code if said else None)
        if found[0] not in BUSY:
            return None
        headers, now = reply.headers, time.time()
        refused = partial(settings.indexes.refused, ())
        return outcome_of(where(settings.url), refused, reply.status, headers, reply.body, 0, now)

    try:
        outcome = asked(lambda: connection.post(b"", target), judge, 0, where(settings.url))
    finally:
        connection.close()
    known = outcome is not None or HEALTHY in found
    return finding("its health", outcome) if known else None, bool(found)


def _event(settings: Splunk) -> Finding:
    what = f"an event to index {settings.index}"
    if settings.acknowledge:
        what += ", and its acknowledgement"
    own = replace(settings, source=SOURCE)
    with contextlib.closing(own.open()) as writer:
        outcome = writer.write(Batch([event(datetime.now(timezone.utc))]))
    return replace(finding(what, outcome), note="" if outcome else f"leaves it there, with source {SOURCE}")


def event(now: datetime) -> Event:
    """What is sent: nothing of anybody's."""
    created_at = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    about = {"id": "evt_check", "type": "grantex_beam.check", "createdAt": created_at, "data": {}}
    return Event("evt_check", "grantex_beam.check", created_at, msgspec.json.encode(about))
