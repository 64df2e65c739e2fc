"""WriteTo(destination): what all sinks share."""

from __future__ import annotations

import re
import uuid
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import StandardOptions
from apache_beam.transforms.window import GlobalWindows

from transforms import coders  # noqa: F401 - elements travel by them
from transforms.dead_letter import DeadLetter
from transforms.direct_runner import is_in_process, local
from transforms.event import Chunk, Receipt
from transforms.write.contract import Destination, name_of
from transforms.write.delivery.bundles import Deliver
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.keyed.attempts import DrainTime
from transforms.write.keyed.shard import Shard
from transforms.write.keyed.stages import DeliverOnTimers


class WriteResult(NamedTuple):
    """What a sink returns: PCollections of Receipt and of DeadLetter."""

    delivered: Any
    dead_letters: Any


class WriteTo(beam.PTransform):  # type: ignore[type-arg]
    """Delivers events to `destination`, at least once, in batches by its policy.

    Takes Chunk, Event, bytes, str or dict elements (an event's JSON) and windows of any kind; batches
    never mix windows. Returns a WriteResult: `delivered` (Receipt, one for each attempt that got something
    through) and `dead_letters` (DeadLetter: rejected events, and elements that are no events).

    It has two ways, and takes the one that fits the pipeline unless `timers` says which:

    - In a streaming pipeline (its input is unbounded, or the `streaming` option is set) on any runner but
      those inside this process: keyed state and timers. Events wait in the runner's state, no bundle ever
      waits for a destination, and an outage may last as long as the state has room. Its outputs are in the
      global window. When the job is drained, what the destination does not take in its `drain` time becomes
      dead letters, as the state ends with the job.
    - Else: each bundle by itself. All of a bundle is delivered before the bundle ends, outages are retried
      inside it, and after five minutes it raises Undelivered: the runner retries the bundle, which may
      repeat events. On runners inside this process timers fire at once or not at all, so there is no other
      way there; ReadFromGrantex keeps its bundles open for as long as `max_age` says.

    What the destination does not ask for (its `asked`) is filtered: counted, and in neither output.

    shards: keys that share the work on timers, across all workers; `destination.concurrency` by default.
    More of them are more requests at a time, and smaller batches.
    dead_letter_limit: dead letters an hour (on clusters: in each worker process), then it only retries.
    drain: how long the end of the input waits for the destination, on timers.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        timers: bool | None = None,
        shards: int | None = None,
        dead_letter_limit: int | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._destination = destination
        self._timers = timers
        self._shards = destination.concurrency if shards is None else shards
        self._dead_letter_limit = dead_letter_limit
        self._drain = drain

    def default_label(self) -> str:
        """`WriteTo` and the destination's part of labels."""
        return f"WriteTo{label(self._destination)}"

    def expand(self, pcoll: Any) -> WriteResult:
        """Elements in, a WriteResult out."""
        if not (_on_timers(pcoll) if self._timers is None else self._timers):
            shared = local(pcoll.pipeline)
            if shared is not None:
                shared.live.has_sink(self._destination.policy.max_age, pcoll.element_type is Chunk)
            return deliver(pcoll, Deliver(self._destination, self._dead_letter_limit))
        name = name_of(self._destination)
        sharded = pcoll | "Shard" >> beam.ParDo(Shard(self._destination, name, self._shards)).with_outputs(
            DEAD_LETTERS, main="chunks"
        )
        one_window = sharded.chunks | "OneWindow" >> beam.WindowInto(GlobalWindows())
        key = uuid.uuid4().hex
        stage = DeliverOnTimers(self._destination, name, key, self._dead_letter_limit, self._drain)
        written = deliver(one_window, stage)
        letters = sharded[DEAD_LETTERS] | "StraysInOneWindow" >> beam.WindowInto(GlobalWindows())
        dead_letters = (written.dead_letters, letters) | "DeadLetters" >> beam.Flatten()
        dead_letters.element_type = DeadLetter
        return WriteResult(written.delivered, dead_letters)

    def display_data(self) -> dict[str, Any]:
        """Name and policy, for the graph's viewers; nothing of the destination's settings."""
        policy = self._destination.policy
        return {
            "destination": name_of(self._destination),
            "max_events": policy.max_events,
            "max_bytes": policy.max_bytes,
            "max_age": policy.max_age,
        }


def label(destination: Destination) -> str:
    """A destination's part of a graph's labels: its name, with the capitals of its class where they are the
    same (BigQuery). Two destinations of one class have two names, and so two labels."""
    kind, words = type(destination).__name__, re.split(r"[-_]", destination.name)
    if "".join(words).lower() in ("", kind.lower()):
        return kind
    return "".join(word[:1].upper() + word[1:] for word in words)


def deliver(pcoll: Any, stage: beam.DoFn) -> WriteResult:
    """`stage`, which gives Receipts, and DeadLetters under their tag, as a sink's "Deliver"."""
    outputs = pcoll | "Deliver" >> beam.ParDo(stage).with_outputs(DEAD_LETTERS, main="delivered")
    outputs.delivered.element_type = Receipt
    outputs[DEAD_LETTERS].element_type = DeadLetter
    return WriteResult(outputs.delivered, outputs[DEAD_LETTERS])


def _on_timers(pcoll: Any) -> bool:
    """Whether state and timers are the way to deliver `pcoll`."""
    streaming = pcoll.pipeline.options.view_as(StandardOptions).streaming
    return not is_in_process(pcoll.pipeline) and (bool(streaming) or not pcoll.is_bounded)
