"""check: what delivery needs is really tried, everywhere at once, before there is an event."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial

from pipelines import exit_codes
from pipelines.check_machine import check_machine, check_secret, secrets_of
from pipelines.findings import Report, as_json, report, table
from pipelines.flags import check as flags
from pipelines.flags.destinations import destinations, feed_settings
from pipelines.flags.settings import BadParameters, Settings, parse
from pipelines.local import logs
from pipelines.preflight import FEED, SECONDS, Preflight, with_key
from transforms.feed.check import check_key, check_socket, check_webhooks
from transforms.feed.request import SSE
from transforms.preflight import Try

log = logging.getLogger("grantex.check")
MACHINE, WEBHOOKS, SOCKET = "this machine", "its webhooks", "its WebSocket"  # no names of destinations


def main(argv: Sequence[str] | None = None) -> int:
    """Try everything, and say what was found; returns the exit code."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv, os.environ, flags.PROGRAM)
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    logs.begin(settings, log)
    return check(settings, in_json=settings["json"])


def check(settings: Settings, in_json: bool = False) -> int:
    """As `main`, with settings that are in force: for --validate_only as well."""
    with in_force(settings, threading.Event()) as effective:
        found = tried(effective)
    print(as_json(found) if in_json else table(found))
    return exit_codes.DRAINED if found.passed else exit_codes.PREFLIGHT_FAILED


def tried(settings: Settings) -> Report:
    """What came of everything that is to be tried."""
    to_try = tries(settings)
    log.info("trying %s; that takes at most %.0f s", ", ".join(to_try), SECONDS)
    running = Preflight(to_try, tell=lambda name, found: None)
    running.start()
    running.wait()
    return report(running.found())


def tries(settings: Settings) -> Mapping[str, Try]:
    """What is tried, by name, in the order in which it is told."""
    found: dict[str, Try] = {MACHINE: lambda: check_machine(settings)} if settings.in_process else {}
    for name, secret in secrets_of(settings).items():
        found[name] = partial(check_secret, secret, settings.way_out)
    if not settings.pubsub_subscription:
        feed = feed_settings(settings)
        found[FEED] = lambda: check_key(feed)
        found[WEBHOOKS] = lambda: check_webhooks(feed, settings.ledger_webhook, settings.webhook_url)
        if feed.transport != SSE:
            found[SOCKET] = lambda: check_socket(feed)
    return found | {each.name: partial(with_key, each, each.check) for each in destinations(settings)}


def in_force(settings: Settings, stop: threading.Event) -> contextlib.AbstractContextManager[Settings]:
    """These settings; with --demo=true those of its practice services, which run meanwhile.

    stop: as in `practice`.
    """
    if not settings.demo:
        return contextlib.nullcontext(settings)
    from pipelines.local.demo import practice  # here, because its servers take time that a real run saves

    return practice(settings, stop)


if __name__ == "__main__":
    sys.exit(main())
