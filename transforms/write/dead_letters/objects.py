"""Dead letters as objects under a gs:// or s3:// prefix (line_objects.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.batch import BatchPolicy
from transforms.clock import SystemClock
from transforms.dead_letter import DeadLetter, DeadLetterError, encode
from transforms.direct_runner import is_in_process
from transforms.event import Batch, Event
from transforms.write.keyed.attempts import DrainTime
from transforms.write.line_objects import BINARY, LineObjects, objects_under
from transforms.write.write_to import WriteTo

# A person looks for a dead letter after a minute; and few objects a minute, whatever goes wrong.
POLICY = BatchPolicy(max_events=10_000, max_bytes=16_000_000, max_age=60.0)


@dataclass(frozen=True)
class LetterObjects(LineObjects):
    """Where they go, by the day on which each became one. Its events are the lines."""

    policy: BatchPolicy = POLICY

    name: ClassVar[str] = "dead_letters"
    what: ClassVar[str] = "dead letters"
    flag: ClassVar[str] = "--dead_letters"


class WriteLetterObjects(beam.PTransform):  # type: ignore[type-arg]
    """DeadLetter in; returns the same.

    Gathers them, a minute or 10,000 at most, and keeps trying; what cannot be written by the end of the input
    raises DeadLetterError, so that the runner repeats the end or ends the job as failed. Unless `timers`, or
    with a runner inside this process when that is None, nothing waits (a lane records a receipt as soon as it
    has passed a dead letter on): each becomes an object of its own, or DeadLetterError is raised at once.
    """

    def __init__(
        self,
        prefix: str,
        timers: bool | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._timers, self._drain = timers, drain
        self._prefix = prefix

    def expand(self, pcoll: Any) -> Any:
        """Dead letters in and out."""
        if not (not is_in_process(pcoll.pipeline) if self._timers is None else self._timers):
            return pcoll | "PutEach" >> beam.ParDo(PutEach(self._prefix))
        events = pcoll | "Encode" >> beam.Map(_as_event).with_output_types(Event)
        put = events | "Put" >> WriteTo(LetterObjects(self._prefix), timers=self._timers, drain=self._drain)
        put.dead_letters | "Unwritten" >> beam.ParDo(Unwritten())
        return pcoll


@beam.typehints.with_input_types(DeadLetter)
class Unwritten(beam.DoFn):
    """What was given up has nowhere else to go: nothing may end well that has lost it."""

    def process(self, element: DeadLetter) -> None:
        raise DeadLetterError(f"a dead letter is not kept anywhere: {element.cause}")


@beam.typehints.with_input_types(DeadLetter)
@beam.typehints.with_output_types(DeadLetter)
class PutEach(beam.DoFn):
    """Each dead letter as an object, before it is passed on."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def setup(self) -> None:
        self._put = put_each(self._prefix)

    def process(self, element: DeadLetter) -> Iterator[DeadLetter]:
        self._put(element)
        yield element


def put_each(prefix: str) -> Callable[[DeadLetter], None]:
    """Makes an object of each dead letter that it is called with. The call raises DeadLetterError."""
    destination = LetterObjects(prefix)
    writer = destination.open()

    def put(letter: DeadLetter) -> None:
        event = _as_event(letter)
        outcome = writer.write(Batch([event], partition=destination.partition(event)))
        if outcome is not None:
            raise DeadLetterError(outcome.cause)

    return put


def is_prefix(directory: str) -> bool:
    """Whether dead letters go to objects of a store instead of files in a directory."""
    return "://" in directory


def lines_under(prefix: str) -> Iterator[bytes]:
    """The lines of all objects under `prefix`, in the order of their names. Raises BeamIOError."""
    for path in objects_under(prefix, LetterObjects.compression):
        with FileSystems.open(path, BINARY, CompressionTypes.UNCOMPRESSED) as file:
            yield from file


def _as_event(letter: DeadLetter) -> Event:
    """A dead letter as an event of LetterObjects."""
    now = SystemClock().now()
    line = encode(letter, now)
    at = datetime.fromtimestamp(letter.at or now, timezone.utc).isoformat()
    return Event(hashlib.blake2b(line, digest_size=16).hexdigest(), letter.stage, at, line)
