"""What the suite knows of a destination: how it is made, what its service can be made to do, what arrived.

A new destination is a subclass of `Case` in `cases/` and one line in `cases/__init__.py`; every test then
runs against it. What its service cannot be made to do is named in `cannot`, with the reason, and those tests
are skipped with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from tests.transforms.write.encodings import CREATED_AT, event
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.contract import Destination

When = Literal["before", "during", "after"]
Ability = Literal[
    "reject",  # the service refuses single events for good
    "busy",  # it asks to come back later
    "retry_after",  # and says when
    "outage",  # it is away
    "reset",  # its connection is reset
    "truncate",  # its answer ends early
    "gateway",  # what stands between loses its answers, and says so
    "late",  # it takes a request and answers after the writer's patience
    "swallow",  # a request vanishes on the way
    "kill",  # it can be killed without warning and keeps what it has acknowledged
    "size",  # it has a largest event
    "credential",  # it asks for one, which can be wrong
    "rotate",  # and which can change while the job runs
    "interrupt",  # a request under way ends when the writer is closed
    "memo",  # the writer keeps a memo with each batch
]


@dataclass(frozen=True)
class Place:
    """Where a case is set up. `server` finds a real server by its fixture's name and starts it if needed;
    `name` is this test's own, for its bucket, table or topic."""

    directory: Path
    environment: pytest.MonkeyPatch
    server: Callable[[str], Any]
    name: str


FORGETS = "the service of the tests forgets everything when it is killed"
SMALL = BatchPolicy(max_events=100, max_age=1.0)


class Case:
    """One destination in front of its service. Methods that change the service act at once.

    name: as in the closing table.
    once: no fault ever makes it repeat an event while its process lives.
    once_over_crashes: nor does the end of its process at any moment.
    cannot: what its service cannot be made to do, and why.
    secrets: values that must never be seen.
    cuts: an event that is too large is cut and marked instead of becoming a dead letter.
    """

    name: ClassVar[str]
    once: ClassVar[bool] = False
    once_over_crashes: ClassVar[bool] = False
    cannot: ClassVar[Mapping[Ability, str]] = {}
    secrets: Sequence[str] = ()
    cuts: ClassVar[bool] = False

    def needs(self, ability: Ability) -> None:
        """Skip the test, with the reason, when the service cannot be made to do this."""
        if ability in self.cannot:
            pytest.skip(f"{self.name}: {self.cannot[ability]}")

    # The destination

    def destination(self, policy: BatchPolicy = SMALL) -> Destination:
        """Settings as a user would give them, with one writer so that faults hit what they are meant for."""
        raise NotImplementedError

    def biggest_policy(self) -> BatchPolicy:
        """The largest requests that the service takes."""
        raise NotImplementedError

    def at_its_best(self) -> Destination:
        """With the largest requests, for a test of the service as it is: nothing needs to stand between."""
        return self.destination(self.biggest_policy())

    # What arrived, through a client that knows nothing of the writer

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        """Id and content of everything that the service holds, repeats included."""
        raise NotImplementedError

    def ids(self) -> Counter[str]:
        """How often each id arrived."""
        return Counter(event_id for event_id, _ in self.arrived())

    def same(self, sent: Event, stored: bytes) -> bool:
        """Whether what `arrived` shows is the event, unharmed: its exact bytes, as a rule."""
        return stored == sent.raw

    def differing(self, sent: Sequence[Event]) -> list[str]:
        """Ids of those that arrived and are not the same."""
        there = dict(self.arrived())
        return [one.id for one in sent if one.id in there and not self.same(one, there[one.id])]

    def is_marked_as_cut(self, sent: Event) -> bool:
        """Whether it arrived short of its end, and says so."""
        raise NotImplementedError

    # Events that the service treats in its own way

    def poison(self, number: int) -> Event:
        """An event that it refuses for good."""
        raise NotImplementedError

    def largest(self, number: int) -> Event:
        """The largest event that it takes as it is."""
        raise NotImplementedError

    def too_large(self, number: int) -> Event:
        """One byte more than `largest`."""
        raise NotImplementedError

    # Faults

    def busy(self, retry_after: str | None = None) -> None:
        """Answer that it is busy, to everything, until `calm`."""
        raise NotImplementedError

    def calm(self) -> None:
        """The end of `busy`, `hang` and `swallow`; what was held up is served now."""
        raise NotImplementedError

    def hang(self) -> None:
        """Requests arrive and get no answer until `calm`."""
        raise NotImplementedError

    def swallow(self) -> None:
        """Requests vanish on their way until `calm`."""
        raise NotImplementedError

    def slow(self, seconds: float) -> None:
        """Each answer comes so late; 0 ends it."""
        raise NotImplementedError

    def reset(self, when: When) -> None:
        """Reset the connection of the next request."""
        raise NotImplementedError

    def truncate(self) -> None:
        """Take the next request and end the connection within the answer."""
        raise NotImplementedError

    def gateway(self) -> None:
        """Requests are taken and answered with a gateway's 504, until `calm`."""
        raise NotImplementedError

    def down(self) -> None:
        """It is away until `up`."""
        raise NotImplementedError

    def up(self) -> None:
        raise NotImplementedError

    def kill(self) -> None:
        """`kill -9` it; `restart` starts it again on what it has kept."""
        raise NotImplementedError

    def restart(self) -> None:
        raise NotImplementedError

    def spoil_credential(self) -> None:
        """The writer has a wrong credential until `mend_credential`. Before `destination` is asked for."""
        raise NotImplementedError

    def revoke_credential(self) -> None:
        """The service no longer takes the credential that the writer has, until `mend_credential`."""
        raise NotImplementedError

    def mend_credential(self) -> None:
        """The credential's place holds one that the service takes."""
        raise NotImplementedError


def events(first: int, count: int, created_at: str = CREATED_AT) -> list[Event]:
    """The events `first`, `first + 1`, ... of a feed."""
    return [event(number, created_at) for number in range(first, first + count)]


def padded(number: int, size: int) -> Event:
    """Event `number` with exactly `size` bytes of JSON."""
    plain = event(number)
    head, tail = plain.raw[:-2], plain.raw[-2:]
    room = size - len(plain.raw) - len(b',"x":""')
    assert room >= 0, f"{size} bytes are too few"
    return Event(plain.id, plain.type, plain.created_at, head + b',"x":"' + b"x" * room + b'"' + tail)


def largest_that(fits: Callable[[Event], bool], number: int, limit: int) -> int:
    """The largest size for which `fits(padded(number, size))` holds; around it goes less than 1000 bytes, or
    it is a little more than `limit` because only a part of it counts."""
    low, high = limit - 1000, limit + 1000
    assert fits(padded(number, low))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(padded(number, middle)) else (low, middle - 1)
    return low
