"""Dead letters as objects under a gs:// or s3:// prefix: NDJSON, partitioned by day, named by content.

Beam's own FileSystems write and read them, with the credentials and options (--s3_endpoint_url, ...) that
they use for everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider

from transforms.batch import BatchPolicy
from transforms.clock import SystemClock
from transforms.dead_letter import DeadLetter, DeadLetterError, encode
from transforms.direct_runner import is_in_process
from transforms.event import Batch, Event
from transforms.write.archive import lines
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.keyed.attempts import DrainTime
from transforms.write.write_to import WriteTo

# A person looks for a dead letter after a minute; and few objects a minute, whatever goes wrong.
POLICY = BatchPolicy(max_events=10_000, max_bytes=16_000_000, max_age=60.0)
BINARY = "application/octet-stream"


@dataclass(frozen=True)
class LetterObjects(Destination):
    """Where they go. Its events are the lines."""

    prefix: str
    policy: BatchPolicy = POLICY
    concurrency: int = 1

    name: ClassVar[str] = "dead_letters"

    def partition(self, event: Event) -> str:
        """The day (UTC) on which it became one: an object never mixes days."""
        return f"dt={event.created_at[:10]}"

    def open(self) -> LetterWriter:
        return LetterWriter(self.prefix)


class LetterWriter(Writer):
    """One object a batch; a batch that is written again replaces its own object."""

    def __init__(self, prefix: str) -> None:
        give_beam_options()
        self._prefix = prefix.rstrip("/")

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch`. Whatever goes wrong is "later": each file system raises exceptions of its own."""
        time = batch.events[0].created_at[11:19].replace(":", "")
        path = f"{self._prefix}/{batch.partition}/{time}-{batch.id}.ndjson"
        try:
            with FileSystems.create(path, BINARY, CompressionTypes.UNCOMPRESSED) as file:
                file.write(lines(batch.events))
        except Exception as error:  # noqa: BLE001 - see above
            cause = (
                f"dead letters cannot be written to {self._prefix}: {type(error).__name__}: {error}. They "
                "are kept and written once this is fixed: check the bucket, its permissions, --dead_letters."
            )
            return Outcome(later=range(len(batch.events)), cause=cause, unknown=True)
        return None

    def close(self) -> None:
        """Nothing is held between batches."""


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
    give_beam_options()
    (found,) = FileSystems.match([f"{prefix.rstrip('/')}/**.ndjson"])
    for path in sorted(metadata.path for metadata in found.metadata_list):
        with FileSystems.open(path, BINARY, CompressionTypes.UNCOMPRESSED) as file:
            yield from file


def give_beam_options() -> None:
    """Beam's S3 refuses to work in a process that was given no options, as are the workers of a pool without
    containers: there the environment alone says where the store is, and who asks."""
    if FileSystems._pipeline_options is None and RuntimeValueProvider.runtime_options is None:
        FileSystems.set_options(PipelineOptions([]))


def _as_event(letter: DeadLetter) -> Event:
    """A dead letter as an event of LetterObjects."""
    now = SystemClock().now()
    line = encode(letter, now)
    at = datetime.fromtimestamp(letter.at or now, timezone.utc).isoformat()
    return Event(hashlib.blake2b(line, digest_size=16).hexdigest(), letter.stage, at, line)
