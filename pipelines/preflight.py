"""The preflight: the feed's key and every destination tried at the start, at once and without an event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence

from transforms.feed.account import try_key
from transforms.feed.request import FeedSettings
from transforms.preflight import Finding, Try
from transforms.secret import redact
from transforms.write.contract import Destination, name_of

log = logging.getLogger("grantex.preflight")

FEED = "the feed"  # no name of a destination
SECONDS = 20.0  # for all of them together
NO_ANSWER = Finding(
    "an answer",
    None,
    f"Nothing came back within {SECONDS:.0f} s. Look at the address, and at what stands between here and it.",
)


def tries(feed: FeedSettings | None, destinations: Sequence[Destination]) -> dict[str, Try]:
    """What is tried, by name; None: the feed is not read."""
    found: dict[str, Try] = {} if feed is None else {FEED: lambda: try_key(feed)}
    return found | {each.name: each.preflight for each in destinations}


UNTRIED = Finding("nothing", None, "It cannot be tried without an event.")


def announce(source: str, to: Sequence[Destination]) -> None:
    """Where from and where to, a line each: which Splunk, which bucket, which table. No secret is in it."""
    log.info("reading from %s", source)
    for destination in to:
        target = redact(destination.target())
        log.info(
            "%s: %s",
            name_of(destination),
            f"events go to {target}" if target else "events go where its class sends them",
        )


class Preflight:
    """Tries each name's `Try` in a thread of its own, and logs what does not pass.

    A start does not wait for it, unless somebody calls `wait`: a destination that hangs holds up nobody.
    """

    def __init__(self, tries: Mapping[str, Try]) -> None:
        self._found: dict[str, Sequence[Finding]] = {}
        self._lock = threading.Lock()
        self._all = threading.Event()
        self._names = list(tries)
        self._threads = [
            threading.Thread(target=self._run, args=(name, tried), name=f"preflight-{name}", daemon=True)
            for name, tried in tries.items()
        ]

    def start(self) -> None:
        """Begin with all of them."""
        for thread in self._threads:
            thread.start()
        if not self._threads:
            self._all.set()

    def of(self, name: str) -> Sequence[Finding] | None:
        """What was found for `name`; None while it is being tried, or when it is not tried at all."""
        return self._found.get(name)

    def wait(self, seconds: float = SECONDS) -> bool:
        """Until all are tried, at most so long; True when everything that was tried passed."""
        if not self._all.wait(seconds):
            with self._lock:
                for name in self._names:
                    self._found.setdefault(name, [NO_ANSWER])
        with self._lock:
            return all(each.passed for found in self._found.values() for each in found)

    def table(self) -> str:
        """What was found, a line each, for a person."""
        lines = []
        for name in self._names:
            found = self.of(name) or [UNTRIED]
            for each in found:
                sign = {True: "passed", False: "FAILED", None: "unknown"}[each.passed]
                lines.append(f"{name:<16} {sign:<8} {each.what}{': ' if each.cause else ''}{each.cause}")
        return "\n".join(lines)

    def _run(self, name: str, tried: Try) -> None:
        found: list[Finding] = []
        try:
            found.extend(tried())
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told and the start goes on
            found.append(Finding("the connection", False, redact(f"{type(error).__name__}: {error}")))
        for each in found:
            if each.passed is False:
                log.warning("%s: %s did not pass: %s", name, each.what, each.cause)
            elif each.passed is None:
                log.warning("%s: nothing is known of %s yet: %s", name, each.what, each.cause)
        with self._lock:
            self._found.setdefault(name, found)
            done = len(self._found) == len(self._names)
        if done:
            self._all.set()
