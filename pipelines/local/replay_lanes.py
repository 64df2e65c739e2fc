"""A replay on this machine: a pipeline for each destination, and what is remembered of it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import apache_beam as beam
import msgspec
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam import in_process_runner, leave_no_directory
from pipelines.flags.custom import changed
from pipelines.flags.settings import Settings
from pipelines.local.replay_shown import Outcome, Shown
from transforms.archive.choice import Archive, Choice
from transforms.archive.read_archive import Interrupted
from transforms.archive.sources import Shard
from transforms.dead_letter import DeadLetter
from transforms.durable import open_private
from transforms.event import Receipt
from transforms.feed.journal.receipts import Receipts
from transforms.in_process import Ticket
from transforms.secret import redact
from transforms.write.contract import Destination, name_of

log = logging.getLogger("grantex.replay")
# It logs what a pipeline raises, at length, before we say it once.
BEAM_LOG = logging.getLogger("apache_beam.runners")

LOOK_EVERY = 0.5
FOREVER = 31_536_000.0
Graph = Callable[[beam.Pipeline, "Lane"], None]


class Sent:
    """Ids that earlier runs of the same replay have settled, in a file that goes when it is complete.

    One JSON array of ids a line, written when the destination has confirmed them: kill -9 loses none, and a
    power cut the last ones, which are then sent again.
    """

    def __init__(self, path: Path | None, keep: bool = True) -> None:
        """path: None knows and remembers nothing. keep: remember more than there is. Raises BlockingIOError
        while another process keeps it."""
        self.ids: set[str] = set()
        self._path = path
        self._file: IO[bytes] | None = None
        if path is not None and keep:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = open_private(str(path), os.O_RDWR | os.O_APPEND | os.O_CREAT)
            self._file = os.fdopen(descriptor, "ab", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path is not None and path.exists():
            for line in path.read_bytes().split(b"\n"):
                with contextlib.suppress(msgspec.MsgspecError):  # torn, or empty
                    self.ids.update(msgspec.json.decode(line, type=list[str]))
        if self._file is not None:
            self._file.write(b"\n")  # the end of a torn line

    def add(self, ids: Sequence[str]) -> None:
        """The destination has them, or has refused them for good."""
        if self._file is not None:
            self._file.write(msgspec.json.encode(list(ids)) + b"\n")

    def close(self, complete: bool) -> None:
        """The run is over; after a complete one the same replay may be asked for anew."""
        if self._path is not None and self._file is not None:
            if complete:
                self._path.unlink(missing_ok=True)
            self._file.close()


class Lane:
    """One destination of a replay; the Watcher of its pipeline, whose thread calls all but `stop`."""

    def __init__(
        self,
        destination: Destination,
        choice: Callable[..., Choice],
        sent: Sent,
        stop: threading.Event,
        max_rate: float = 0.0,
    ) -> None:
        self.destination, self.choice = destination, choice
        self.ticket: Ticket[Lane] = Ticket(self)
        self.outcome = Outcome(name_of(destination))
        self.work = 0  # of the archive's, that has been read
        self.ended = threading.Event()
        self._sent, self._stop = sent, stop
        self._max_rate, self._due, self._paced = max_rate, 0.0, 0
        self._cut = False  # the archive was not read to its end

    def may_go_on(self) -> bool:
        """See Watcher. A batch that was cut short would be another one the next time."""
        if self._stop.is_set():
            self._cut = True
            if self.destination.by_content():
                raise Interrupted
        return not self._cut

    def read(self, shard: Shard, counts: Counter[str]) -> None:
        self.work += shard.size
        self.outcome.found = counts.copy()

    def chose(self, counts: Counter[str]) -> None:
        self.outcome.chosen = counts.copy()
        if self._max_rate:
            new, self._paced = counts["chosen"] - self._paced, counts["chosen"]
            now = time.monotonic()
            self._due = max(self._due, now) + new / self._max_rate
            self._stop.wait(self._due - now)

    def record(self, result: Receipt | DeadLetter) -> None:
        """Something was delivered, or is on disk as a dead letter."""
        if isinstance(result, Receipt):
            self.outcome.delivered += len(result.event_ids)
            self._sent.add(result.event_ids)
        else:
            self.outcome.dead_lettered += 1
            self._sent.add([result.event_id])

    def run(self, pipeline: beam.Pipeline) -> None:
        """Run its pipeline to the end; never raises."""
        try:
            pipeline.run().wait_until_finish()
            self.outcome.failure = INTERRUPTED if self._cut else ""
        except Exception as error:  # noqa: BLE001 - whatever it was, other destinations go on
            self.outcome.failure = INTERRUPTED if self._cut else why(error)
            if not self._cut:
                log.error("%s: %s", self.outcome.name, self.outcome.failure)
        finally:
            self._sent.close(complete=not self.outcome.failure)
            self.ticket.void()
            self.ended.set()


INTERRUPTED = "interrupted. The same command goes on."


def why(error: BaseException) -> str:
    """What ended a pipeline, for a person: without what Beam adds of its stages."""
    text = str(error).split(" [while running ")[0].split("; the runner retries")[0].strip()
    first = redact(text.splitlines()[0] if text else type(error).__name__).rstrip(".")
    return f"{first}. The same command goes on."


def choice_in(lane: Ticket[Lane], *, once: bool) -> Choice:
    """What goes to a lane's destination; what it knows of the past stays where it is."""
    return lane.live.choice(once=once)


class Record(beam.DoFn):
    """Tells the lane of receipts and dead letters."""

    def __init__(self, lane: Ticket[Lane]) -> None:
        self._lane = lane

    def process(self, element: Any) -> None:
        self._lane.live.record(element)


def lane(settings: Settings, archive: Archive, destination: Destination, stop: threading.Event) -> Lane:
    """The lane of a destination, with what earlier runs have left. Raises BlockingIOError, JournalError."""
    name = name_of(destination)
    if destination.by_content():  # its batches must be the same ones each time
        policy = replace(destination.policy, max_age=FOREVER)
        destination = changed(destination, policy=policy)
        sent = Sent(None)
    else:
        what = f"{archive.source}\n{destination.target()}".encode()
        file = f"{name}-{hashlib.blake2b(what, digest_size=8).hexdigest()}.ndjson"
        sent = Sent(settings.state_dir / "replay" / file, keep=not settings["plan_only"])

    delivered = None if settings["force"] else receipts_at(settings.state_dir, name)

    def choice(*, once: bool) -> Choice:
        return Choice(
            name,
            to_all=settings["to_all"],
            delivered=delivered,
            earlier=sent.ids,
            once=once,
            types=destination.asked.type_filter(),
        )

    return Lane(destination, choice, sent, stop, settings["max_rate"])


def receipts_at(state_dir: Path, name: str) -> Callable[[Sequence[str]], Collection[str]] | None:
    """Of some ids those that a destination has a receipt for; None where there is no journal. Raises
    JournalError."""
    if not (state_dir / "journal.sqlite3").exists():
        return None
    return partial(Receipts(state_dir).delivered, name)


def run(
    lanes: Sequence[Lane], graph: Graph, work: int, drain_timeout: float, stop: threading.Event
) -> Sequence[Outcome]:
    """Run all of them at once, and show how far they are of so much work. After `stop` they have
    `drain_timeout` seconds to end."""
    BEAM_LOG.setLevel(logging.CRITICAL)
    pipelines = []
    for each in lanes:  # one after another: Beam's building is not made for threads
        pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
        leave_no_directory(pipeline)
        graph(pipeline, each)
        pipelines.append(pipeline)
    for each, pipeline in zip(lanes, pipelines, strict=True):
        threading.Thread(target=each.run, args=(pipeline,), name=each.outcome.name, daemon=True).start()
    with Shown(lanes, work) as shown:
        while not all(each.ended.is_set() for each in lanes):
            shown.look()
            if stop.is_set():
                give_up = time.monotonic() + drain_timeout
                for each in lanes:
                    if not each.ended.wait(max(give_up - time.monotonic(), 0.0)):
                        each.outcome.failure = INTERRUPTED
                break
            next((each for each in lanes if not each.ended.is_set()), lanes[0]).ended.wait(LOOK_EVERY)
        shown.look()
    return [each.outcome for each in lanes]
