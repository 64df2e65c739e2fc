"""ReadFromGrantex and WriteToFiles in somebody's own pipeline, without lanes, on the in-process runner."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam import in_process_runner
from pipelines.practice.events import generate
from pipelines.practice.feed import PracticeFeed
from tests.integration.evidence import ids_in_files, lines_in_files
from tests.pipelines.local.test_lane import eventually
from transforms.batch import BatchPolicy
from transforms.direct_runner import local
from transforms.event import Event
from transforms.feed.read import Events, ReadFromGrantex
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret
from transforms.write.dead_letters.directory import WriteDeadLetters, read_dead_letters
from transforms.write.sinks import WriteToFiles

PATIENCE = 30.0


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed(keepalive=1.0) as made:
        yield made


def run(feed: PracticeFeed, place: Path, publish: list[bytes], max_events: int) -> None:
    """One run of a pipeline that anyone could write, fed once its stream is open."""
    settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    before = len(feed.streams)

    def send() -> None:
        feed.wait_for(lambda: len(feed.streams) > before, PATIENCE)
        feed.publish_many(publish)

    sender = threading.Thread(target=send)
    sender.start()
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    read = pipeline | "ReadFromGrantex" >> ReadFromGrantex(
        settings, state_dir=str(place / "state"), max_events=max_events, max_seconds=PATIENCE
    )
    _ = read.dead_letters | "WriteStrays" >> WriteDeadLetters(place / "letters")
    _ = read.chunks | Events() | WriteToFiles(str(place / "out"))
    pipeline.run().wait_until_finish()
    sender.join()


def test_events_arrive_strays_come_out_and_a_second_run_goes_on(feed: PracticeFeed, tmp_path: Path) -> None:
    first, second = (list(islice(generate(), count)) for count in (120, 80))
    run(feed, tmp_path, [b"no JSON", *first], max_events=120)
    assert sorted(lines_in_files(tmp_path / "out")) == sorted(first)
    assert [letter.raw for letter in read_dead_letters(tmp_path / "letters")] == [b"no JSON"]

    run(feed, tmp_path, second, max_events=80)
    assert sorted(lines_in_files(tmp_path / "out")) == sorted(first + second)
    assert len(set(ids_in_files(tmp_path / "out"))) == 200
    # the time between the two runs is a gap, and on record
    causes = [letter.cause for letter in read_dead_letters(tmp_path / "letters")]
    assert len([cause for cause in causes if cause.startswith("feed_gap")]) == 1


def test_max_seconds_ends_a_reading_that_gets_nothing(feed: PracticeFeed, tmp_path: Path) -> None:
    settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    read = pipeline | ReadFromGrantex(settings, state_dir=str(tmp_path / "state"), max_seconds=0.3)
    _ = read.chunks | Events() | WriteToFiles(str(tmp_path / "out"))
    pipeline.run().wait_until_finish()
    assert lines_in_files(tmp_path / "out") == []


def test_the_end_of_the_input_ends_the_pipeline(feed: PracticeFeed, tmp_path: Path) -> None:
    feed.end_input()
    settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    read = pipeline | ReadFromGrantex(settings, state_dir=str(tmp_path / "state"))
    _ = read.chunks | Events() | WriteToFiles(str(tmp_path / "out"))
    pipeline.run().wait_until_finish()
    assert [request.status for request in feed.requests if request.path.endswith("/stream")] == [204]


class _FailsOnce(beam.DoFn):
    """Like a process that crashes in the middle of its first bundle."""

    failed = False

    def process(self, element: Event) -> Iterator[Event]:
        if not _FailsOnce.failed and element.raw.endswith(b"5}"):
            _FailsOnce.failed = True
            raise ZeroDivisionError("in the middle")
        yield element


def test_what_a_failed_pipeline_had_read_is_read_again(feed: PracticeFeed, tmp_path: Path) -> None:
    settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    numbers = [b'{"id":"evt_%d","type":"t","n":%d}' % (n, n) for n in range(30)]

    def run_once() -> None:
        pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
        read = pipeline | ReadFromGrantex(
            settings, state_dir=str(tmp_path / "state"), max_events=30, max_seconds=PATIENCE
        )
        _ = read.chunks | Events() | beam.ParDo(_FailsOnce()) | WriteToFiles(str(tmp_path / "out"))
        pipeline.run().wait_until_finish()

    def send() -> None:
        feed.wait_for_streams()
        feed.publish_many(numbers)

    sender = threading.Thread(target=send)
    sender.start()
    with pytest.raises(Exception, match="in the middle"):
        run_once()
    sender.join()
    run_once()
    assert set(lines_in_files(tmp_path / "out")) == set(numbers)


def _has(place: Path, event: bytes) -> bool:
    return event in lines_in_files(place)


@pytest.mark.parametrize("with_journal", [True, False])
def test_each_sink_sends_as_its_settings_say_and_not_at_each_bundle(
    feed: PracticeFeed, tmp_path: Path, with_journal: bool
) -> None:
    """No timer can do it on this runner: the source keeps its bundle open, and ticks in it."""
    quick, slow, events = tmp_path / "quick", tmp_path / "slow", list(islice(generate(), 4))
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    settings = FeedSettings(feed.url, LiteralSecret(feed.api_key))
    read = pipeline | ReadFromGrantex(settings, state_dir=str(tmp_path / "state") if with_journal else None)
    _ = read.chunks | "Quick" >> WriteToFiles(str(quick), policy=BatchPolicy(10, 10_000, 0.3))
    _ = read.chunks | "Slow" >> WriteToFiles(str(slow), policy=BatchPolicy(10, 10_000, 300.0))
    running = threading.Thread(target=lambda: pipeline.run().wait_until_finish())
    running.start()
    feed.wait_for_streams()
    for event in events:
        feed.publish(event)
        assert eventually(partial(_has, quick, event))
    assert lines_in_files(slow) == []
    shared = local(pipeline)
    assert shared is not None
    shared.live.stopped = True  # as Ctrl-C does it
    running.join(PATIENCE)
    assert not running.is_alive()
    assert sorted(lines_in_files(slow)) == sorted(lines_in_files(quick)) == sorted(events)
    assert len([*slow.rglob("*.ndjson*")]) == 1


def test_a_sink_of_single_events_has_no_ticks_and_so_the_shortest_wait_decides(feed: PracticeFeed) -> None:
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    read = pipeline | ReadFromGrantex(FeedSettings(feed.url, LiteralSecret(feed.api_key)))
    shared = local(pipeline)
    assert shared is not None
    assert shared.live.gather == 0.0, "nobody gathers"
    _ = read.chunks | "Slow" >> WriteToFiles("out", policy=BatchPolicy(10, 10_000, 300.0))
    assert shared.live.gather == 300.0
    _ = read.chunks | Events() | "Quick" >> WriteToFiles("out", policy=BatchPolicy(10, 10_000, 2.0))
    assert shared.live.gather == 2.0
