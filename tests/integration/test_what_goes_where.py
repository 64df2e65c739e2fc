"""What goes where, over a kill -9: twelve types, four destinations with patterns, pseudonyms at one."""

from __future__ import annotations

import contextlib
import hmac
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import count

import pytest

from tests.integration.evidence import accepted, call_witness
from tests.integration.job import Job, World
from tests.integration.kill_test import paced
from tests.servers import landing
from tests.servers.bigquery import Emulator
from tests.servers.landing import Landing
from tests.servers.seaweedfs import SeaweedFS
from transforms.event import Event
from transforms.feed.journal.receipts import Found, Receipts

TYPES = (
    *("grant.created", "grant.revoked", "grant.suspended", "token.issued"),
    *("budget.threshold", "budget.exhausted", "sso.login", "sso.connection.created"),
    *("vault.credential.stored", "wallet.blocked", "anomaly.detected", "vc.issued"),
)
PATTERNS = {
    "s3": "!wallet.*",
    "bigquery": "grant.*,token.issued,!grant.suspended",
    "splunk": "*.created,b?dget.[et]*,wallet.blocked",
    "files": "nothing.of.it,vc.issued",
}
KEY = "a-key-that-is-long-enough"
PERSON = b'"principalId":"user-%d@example.com"'


def asks(name: str, kind: str) -> bool:
    """Said once more, in other words than the job's."""
    parts = PATTERNS[name].split(",")
    wanted = [part for part in parts if part[0] != "!"]
    if any(fnmatchcase(kind, part[1:]) for part in parts if part[0] == "!"):
        return False
    return any(fnmatchcase(kind, part) for part in wanted) if wanted else True


def events() -> Iterator[bytes]:
    for number in count():
        yield (
            b'{"id":"evt_%08d", "type":"%b","createdAt":"2026-03-01T12:00:00.000Z",'
            b'"data":{%b, "list":[{"email":"%d@x"},{"email":null}], "n":1.50}}'
        ) % (number, TYPES[number % len(TYPES)].encode(), PERSON % (number % 7), number)


@pytest.fixture
def landings(around: World, seaweedfs: SeaweedFS, emulator: Emulator) -> Sequence[Landing]:
    made = (
        landing.s3(seaweedfs, "types-12x4"),
        landing.bigquery(emulator, "types_12x4"),
        landing.splunk(around.splunk),
        landing.files(around.out),
    )
    around.deliver_to(made)
    return made


def flags(around: World, landings: Sequence[Landing]) -> list[str]:
    types = {f"{name}_types": pattern for name, pattern in PATTERNS.items()}
    fields = "data.principalId,data.list.email"
    return around.flags(
        **paced(landings), **types, splunk_pseudonymize=fields, pseudonym_key="env:PSEUDONYM_KEY"
    )


def live(around: World, landings: Sequence[Landing], until: int) -> Job:
    """A start that has received so many events."""
    job = around.popen(flags(around, landings))
    try:
        job.wait_until(lambda: job.metric("grantex_events_received_total") >= until, f"{until} events")
    except BaseException:
        job.kill()
        raise
    return job


def test_each_destination_has_what_it_asks_for_and_the_books_have_the_rest(
    around: World, landings: Sequence[Landing]
) -> None:
    around.environment = {**around.environment, "PSEUDONYM_KEY": KEY}
    call_witness(around.state, around.feed.url)
    with around.feed.publishing(1000.0, events()):
        for until in (600, 1500):
            live(around, landings, until).kill()
        job = live(around, landings, 2400)
    try:
        job.wait_until_settled(*PATTERNS)
        told = job.metrics()
        assert job.drain() == 0
    finally:
        job.kill()

    with contextlib.closing(Receipts(around.state)) as receipts:  # the look at its end turns them off
        found = list(receipts.received(0.0, time.time() + 60.0))
    taken = {event.id: event for event in accepted(around.state, around.feed.url)}
    assert len({event.type for event in taken.values()}) == 12
    for one in landings:
        asked = {each.id for each in taken.values() if asks(one.name, each.type)}
        held = Counter(event_id for event_id, _ in one.read())
        assert held.keys() == asked, one.name
        assert held.total() == len(held) or not one.once, f"{one.name} has some twice"
        counted = [told[f"grantex_events_{what}", one.name] for what in ("delivered_total", "filtered_total")]
        assert counted == [len(asked), len(taken) - len(asked)]
    check_receipts(found, taken)
    check_pseudonyms(landings, taken)


def check_receipts(receipts: Sequence[Found], taken: dict[str, Event]) -> None:
    assert {found.id for found in receipts} == taken.keys()
    for found in receipts:
        states = {name: found.destinations[name].state for name in PATTERNS}
        kind = taken[found.id].type
        assert states == {name: "delivered" if asks(name, kind) else "filtered" for name in PATTERNS}


def check_pseudonyms(landings: Sequence[Landing], taken: dict[str, Event]) -> None:
    """The archive has the bytes as they were received, the SIEM all but two fields of them."""
    by_name = {one.name: dict(one.read()) for one in landings}
    assert all(raw == taken[event_id].raw for event_id, raw in by_name["s3"].items())
    for event_id, sent in by_name["splunk"].items():
        raw = taken[event_id].raw
        data = json.loads(raw)["data"]
        for value in (data["principalId"], data["list"][0]["email"]):
            hidden = hmac.new(KEY.encode(), value.encode(), "sha256").hexdigest()
            raw = raw.replace(b'"%b"' % value.encode(), b'"%b"' % hidden.encode())
        assert sent == raw
