"""ReadFromGrantex: the feed as an unbounded PCollection of chunks."""

from __future__ import annotations

import uuid
from typing import Any

import apache_beam as beam
from apache_beam.pvalue import PBegin

from transforms import coders  # noqa: F401 - elements travel by them
from transforms.dead_letter import DeadLetter
from transforms.direct_runner import Local, local
from transforms.event import Event
from transforms.feed.deduplicate import Deduplicate
from transforms.feed.request import FeedSettings
from transforms.feed.source import (
    CHUNKS,
    DEAD_LETTERS,
    Feed,
    StandaloneSource,
    read_journal,
    with_dead_letters,
)
from transforms.feed.worker.read import ReadOnWorker
from transforms.feed.worker.sessions import RING_BYTES, WorkerFeed
from transforms.in_process import Ticket


class ReadFromGrantex(beam.PTransform):  # type: ignore[type-arg]
    """Reads the Grantex event feed.

    Returns a Feed: `chunks` (Chunk, timestamped by arrival; `Events` makes single events of them) and
    `dead_letters` (DeadLetter: frames that are no events, ids that came twice with other bytes, feed gaps).

    With a `state_dir`, on one machine and the in-process runner, it keeps a durable journal there: what it
    read is read again after a crash unless the runner had gone on to the next bundle.

    On a runner inside this process it keeps its bundles open for as long as the sinks behind it may gather
    (their `max_age`), and Ctrl-C is the end of the input: what was received is delivered, and the pipeline
    ends.

    Without a `state_dir` it reads on a cluster's workers, and keeps in their memory what the runner has not
    committed yet. The feed cannot be replayed: when a worker is replaced, or its range moved to another
    process, what it held and what is published until the next connection is live are lost, and recorded as a
    gap. After a restore from an older checkpoint the same holds for what came since. Nothing is lost while
    the processes live: a runner that falls behind holds up the socket, and a bundle that fails is read
    again. With several connections, each a range of its own, copies are dropped by id within `horizon`.
    """

    def __init__(
        self,
        feed: FeedSettings,
        *,
        state_dir: str | None = None,
        name: str = "reader",
        connections: int = 1,
        max_events: int | None = None,
        max_seconds: float | None = None,
        horizon: float = 3600.0,
        ring_bytes: int = RING_BYTES,
    ) -> None:
        """
        feed: the service and the reference of its API key.
        state_dir: directory of the journal; one process at a time. None: on workers, in memory.
        name: of this reader's cursor in the journal.
        connections: overlapping streams, a ceiling.
        max_events, max_seconds: with a journal, end the reading after at least so many events, or so long;
            by default it goes on until the service ends the input.
        horizon: on workers, seconds for which an id is remembered when there are several connections.
        ring_bytes: on workers, memory for each connection; past it the socket is held up.

        Raises ValueError for an end without a journal. At run time JournalError: the directory is in use or
        belongs to another feed.
        """
        super().__init__()
        self._root, self._horizon = feed.root, horizon
        if state_dir is not None:
            self._from: StandaloneSource | WorkerFeed = StandaloneSource(
                feed, state_dir, name, connections=connections, max_events=max_events, max_seconds=max_seconds
            )
        else:
            if (max_events, max_seconds) != (None, None):
                raise ValueError("`max_events` and `max_seconds` need a `state_dir`: workers read on")
            self._from = WorkerFeed(feed, uuid.uuid4().hex, connections, ring_bytes)

    def expand(self, pbegin: PBegin) -> Feed:
        shared = local(pbegin.pipeline)
        if shared is not None:
            shared.live.end_on_interrupt()
        if isinstance(self._from, StandaloneSource):
            return read_journal(pbegin, self._from.key, self._from, shared)
        return self._on_workers(pbegin, self._from, shared)

    def _on_workers(self, pbegin: PBegin, worker: WorkerFeed, shared: Ticket[Local] | None) -> Feed:
        outputs = (
            pbegin
            | "Source" >> beam.Create(list(range(worker.connections)))
            | "Ring" >> with_dead_letters(ReadOnWorker(worker, DEAD_LETTERS, shared))
        )
        outputs[DEAD_LETTERS].element_type = DeadLetter
        if worker.connections == 1:
            return Feed(outputs[CHUNKS], outputs[DEAD_LETTERS])
        once = outputs[CHUNKS] | "Deduplicate" >> Deduplicate(self._horizon)
        letters = (outputs[DEAD_LETTERS], once.dead_letters) | "DeadLetters" >> beam.Flatten()
        return Feed(once.chunks, letters)

    def display_data(self) -> dict[str, Any]:
        return {"source": self._from.key if isinstance(self._from, StandaloneSource) else self._root}


class Events(beam.PTransform):  # type: ignore[type-arg]
    """Chunks to their single events."""

    def expand(self, chunks: Any) -> Any:
        return chunks | "Unpack" >> beam.FlatMap(lambda chunk: chunk.events).with_output_types(Event)
