"""The contract between WriteTo and a destination: small enough for a destination in 30 lines."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.write.asked import ALL_TYPES, Asked


@dataclass(frozen=True)
class Outcome:
    """What became of a batch's events, by index; those not named here are delivered.

    rejected: index -> reason; these become dead letters and are never sent again, once the destination shows
        that it takes other events (refusals.py): one that refuses everything has an outage.
    unsent: of those rejected, what the writer itself found unfit and did not send: no evidence is needed.
    later: indexes to send again.
    cause: one plain sentence for a person: what happened and what to do about it.
    retry_after: seconds the service asked to be left alone.
    unknown: what is later may have arrived all the same (counted as a possible repeat).
    too_large: the service found the request too big: what is later is sent again in two halves, and a
        single event becomes a dead letter.
    blocked: nothing will pass until something outside changes (a credential, a missing table): the
        circuit opens at once instead of after a few failures.
    """

    rejected: Mapping[int, str] = field(default_factory=dict)
    later: Collection[int] = ()
    cause: str = ""
    retry_after: float | None = None
    unknown: bool = False
    too_large: bool = False
    blocked: bool = False
    unsent: Collection[int] = ()


def finding(what: str, outcome: Outcome | None) -> Finding:
    """What the outcome of a try without an event says of `what`. That a service is busy or cannot be reached
    may pass by itself, and tells nothing."""
    if outcome is None:
        return Finding(what, True)
    return Finding(what, False if outcome.blocked else None, outcome.cause)


class Writer:
    """A live connection to a destination, used by one thread at a time."""

    def write(self, batch: Batch) -> Outcome | None:
        """Try to deliver `batch` once; None means that all of it is delivered.

        A writer that knows where it lies now says so in `batch.place` (an object's key, rows of a stream),
        for the receipts.
        A connection error or time-out may be raised and counts as "all later" (the writer is kept and is
        expected to connect anew); any other exception is a bug and restarts the lane.
        """
        raise NotImplementedError

    def preflight(self) -> Iterable[Finding]:
        """Try what delivery needs, as far as that costs nothing and writes nothing.

        Nothing by default: then a destination counts as not tried until its first delivery.
        """
        return ()

    def close(self) -> None:
        """Let go of the connection; called once."""


class Destination:
    """Settings of one destination: a frozen dataclass, picklable, that opens connections on the worker.

    Each field is a setting that a person may give; `transforms.setting.setting` says more of it than its
    annotation does. `title` is the destination's name in words.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    policy: BatchPolicy = BatchPolicy()
    asked: Asked = ALL_TYPES
    concurrency: int = 1  # writers opened; each is used by one thread at a time

    def exactly_once(self) -> bool:
        """Whether each event lies there once, whatever is repeated or breaks in between on one machine.

        Then an event that may be there, for all that a damaged journal knows, becomes a dead letter and is
        not sent again.
        """
        return False

    def by_content(self) -> bool:
        """Whether what it writes is named after a batch's events, so that the same batch, made once more by
        anybody at any time, is there once."""
        return False

    def faults(self) -> Iterator[tuple[str, str]]:
        """What these settings may not be together: a field, and what is wrong with it (other fields in
        braces, "needs {role_arn}"). Asked for what a person gave; a class that cannot be with such faults
        raises `BadSettings(self.faults())` as well."""
        yield from ()

    def size(self, event: Event) -> int:
        """Encoded size of `event` in bytes as it counts against `policy.max_bytes`."""
        return len(event.raw) + 1

    def sizes(self, events: Sequence[Event]) -> Iterable[int]:
        """`size` of each; for a destination that can tell many at once for less."""
        return map(self.size, events)

    def form(self) -> Hashable:
        """What `sizes` and the encoding of an event depend on besides the event. Destinations with the same
        form make the same of it, once for all of them; with None each makes its own."""
        return None

    def partition(self, event: Event) -> str:
        """Events with different values never share a batch."""
        return ""

    def open(self) -> Writer:
        """A new connection; called on the worker, never at construction."""
        raise NotImplementedError

    def target(self) -> str:
        """Where events go, for a person: "index main at https://splunk:8088". No secret; "" tells nothing."""
        return ""

    def preflight(self) -> Iterator[Finding]:
        """Try what delivery needs, over a connection of its own; called at the start, in a thread of its own.

        May raise what `open` and `Writer.write` may.
        """
        writer = self.open()
        try:
            yield from writer.preflight()
        finally:
            writer.close()

    def check(self) -> Iterable[Finding]:
        """In the place of `preflight`, when a person asks (`grantex-beam check`): as near to a delivery as
        can be without an event. May leave a trace, which a finding's `note` tells; a few seconds long.

        May raise what `open` and `Writer.write` may.
        """
        return self.preflight()


def name_of(destination: Destination) -> str:
    """What a destination is called; its class when it has no name."""
    return destination.name or type(destination).__name__
