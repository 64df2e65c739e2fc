"""The preflight: the feed's key and every destination tried at the start, at once and without an event."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from transforms.feed.account import try_key
from transforms.feed.request import FeedSettings
from transforms.preflight import Finding, Try
from transforms.secret import redact
from transforms.write.contract import Destination, name_of
from transforms.write.pseudonyms import key_found

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
    return found | {each.name: partial(with_key, each, each.preflight) for each in destinations}


def with_key(destination: Destination, tried: Try) -> Iterator[Finding]:
    """The key of the pseudonyms that it is asked for, if any; then what `tried` finds of it."""
    yield from key_found(destination)
    yield from tried()


UNTRIED = Finding("nothing", None, "It cannot be tried without an event.")  # stops nobody


def announce(source: str, to: Sequence[Destination]) -> None:
    """Where from and where to, a line each: which Splunk, which bucket, which table. No secret is in it."""
    log.info("reading from %s", source)
    for destination in to:
        target, asked = redact(destination.target()), destination.asked
        log.info(
            "%s: %s%s%s",
            name_of(destination),
            f"events go to {target}" if target else "events go where its class sends them",
            redact(f"; only {', '.join(asked.types)}") if asked.types else "",
            f"; with pseudonyms in {', '.join(asked.pseudonymize)}" if asked.pseudonymize else "",
        )


def logged(name: str, found: Finding) -> None:
    """What does not pass, as lines of the log."""
    if found.passed is False:
        log.warning("%s: %s did not pass: %s", name, found.what, found.cause)
    elif found.passed is None:
        log.warning("%s: nothing is known of %s yet: %s", name, found.what, found.cause)


class Preflight:
    """Tries each name's `Try` in a thread of its own, and tells what was found.

    A start does not wait for it, unless somebody calls `wait`: a destination that hangs holds up nobody.
    tell: called with a name and each finding, on that name's thread.
    """

    def __init__(self, tries: Mapping[str, Try], tell: Callable[[str, Finding], None] = logged) -> None:
        self._tell = tell
        self._found: dict[str, list[Finding]] = {name: [] for name in tries}
        self._open = set(tries)  # not done yet
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._run, args=(name, tried), name=f"preflight-{name}", daemon=True)
            for name, tried in tries.items()
        ]

    def start(self) -> None:
        """Begin with all of them."""
        for thread in self._threads:
            thread.start()

    def of(self, name: str) -> Sequence[Finding] | None:
        """What was found for `name`; None while it is being tried, or when it is not tried at all."""
        with self._changed:
            return None if name in self._open or name not in self._found else list(self._found[name])

    def wait(self, seconds: float = SECONDS) -> bool:
        """Until all are tried, at most so long; True when everything that was tried passed. What comes later
        than that is not looked at any more."""
        with self._changed:
            self._changed.wait_for(lambda: not self._open, seconds)
            for name in self._open:
                self._found[name].append(NO_ANSWER)
            self._open.clear()
            return all(each.passed for found in self._found.values() for each in found)

    def found(self) -> Mapping[str, Sequence[Finding]]:
        """What was found so far, by name, in the order in which they were given."""
        with self._changed:
            return {name: list(found) or [UNTRIED] for name, found in self._found.items()}

    def _run(self, name: str, tried: Try) -> None:
        try:
            for each in tried():
                if not self._add(name, each):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it was, it is told and the start goes on
            cause = redact(f"{type(error).__name__}: {error}")
            self._add(name, Finding("the connection", False, cause))
        with self._changed:
            self._open.discard(name)
            self._changed.notify_all()

    def _add(self, name: str, found: Finding) -> bool:
        """False when nobody waits for it any more."""
        with self._changed:
            if name not in self._open:
                return False
            self._found[name].append(found)
        self._tell(name, found)
        return True
