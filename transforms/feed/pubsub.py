"""ReadFromPubSub: events that a relay published, as chunks. The lossless way into a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp import pubsub
from apache_beam.pvalue import DoOutputsTuple, PBegin, TaggedOutput
from apache_beam.transforms.window import GlobalWindow, TimestampedValue
from apache_beam.utils.windowed_value import WindowedValue

from transforms import pubsub_names as names
from transforms.clock import Clock, SystemClock
from transforms.event import Chunk, Event
from transforms.feed.source import CHUNKS, DEAD_LETTERS
from transforms.feed.status import FeedCounters
from transforms.held import HELD
from transforms.parse import parse_frame

# As many as travel together from the feed.
CHUNK_EVENTS = 500
# In raw bytes, looked at before a message is added: a message may have 10 MB and an element at most 80 MB,
# above which Dataflow refuses it for ever. One message beyond it makes a chunk of its own.
CHUNK_BYTES = 1_000_000


class ReadFromPubSub(beam.PTransform[PBegin, DoOutputsTuple]):  # type: ignore[type-var]
    """Reads a Pub/Sub subscription whose messages are Grantex events, one a message.

    Results as ReadFromGrantex has them: `.chunks` (Chunk, timestamped by arrival here) and `.dead_letters`
    (DeadLetter: messages that are no events). Pub/Sub keeps a message until the runner has committed what
    became of it, so nothing is lost when a worker is. That is when the first stages have committed it, not
    when it is delivered: what a destination does not take is held by the job alone. Past `held.BOUND` reading
    is slowed, so that the rest stays in the subscription. Dataflow drops what Pub/Sub or its publisher sends
    twice within ten minutes, by the attribute `event_id`. Any runner that has Beam's own ReadFromPubSub.
    """

    def __init__(self, subscription: str) -> None:
        """subscription: projects/PROJECT/subscriptions/NAME. Raises ValueError for anything else."""
        super().__init__()
        self._subscription = names.subscription(subscription)

    def expand(self, pbegin: PBegin) -> DoOutputsTuple:
        messages = pubsub.ReadFromPubSub(subscription=self._subscription, id_label=names.EVENT_ID)
        outputs = (
            pbegin
            | "Messages" >> messages
            | "Chunk" >> beam.ParDo(ToChunks()).with_outputs(DEAD_LETTERS, main=CHUNKS)
        )
        outputs[CHUNKS].element_type = Chunk
        return outputs

    def display_data(self) -> dict[str, Any]:
        return {"subscription": self._subscription}


@beam.typehints.with_input_types(bytes)
class ToChunks(beam.DoFn):
    """The messages of a bundle become few chunks. Timestamps are those of arrival: a message may have waited
    for days, and what is late for its window would be dropped by the runner."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._counters = FeedCounters()

    def start_bundle(self) -> None:
        self._counters.declare()
        self._events: list[Event] = []
        self._bytes = 0
        HELD.slow_down(self._clock)

    def process(self, element: bytes) -> Iterator[Any]:
        now = self._clock.now()
        parsed = parse_frame(element, now)
        if not isinstance(parsed, Event):
            self._counters.count(parsed)
            yield TaggedOutput(DEAD_LETTERS, parsed)
            return
        if self._events and self._bytes + len(parsed.raw) > CHUNK_BYTES:
            yield TimestampedValue(self._take_chunk(now), now)
        self._events.append(parsed)
        self._bytes += len(parsed.raw)
        if len(self._events) >= CHUNK_EVENTS:
            yield TimestampedValue(self._take_chunk(now), now)

    def finish_bundle(self) -> Iterator[Any]:
        if self._events:
            now = self._clock.now()
            yield WindowedValue(self._take_chunk(now), now, (GlobalWindow(),))

    def _take_chunk(self, now: float) -> Chunk:
        events, self._events, self._bytes = self._events, [], 0
        chunk = Chunk(events, taken_at=now)
        self._counters.count(chunk)
        return chunk
