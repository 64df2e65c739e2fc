"""Bundles of one or two worker processes: what is committed, repeated, moved, lost and recorded."""

from __future__ import annotations

import threading
from dataclasses import replace

import msgspec
import pytest

from tests.integration.collect import wait_for
from tests.transforms.feed.worker.support import (
    FEED,
    Bundle,
    Process,
    StepClock,
    TrackerView,
    Watermark,
    events,
)
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk
from transforms.feed.coverage import Coverage
from transforms.feed.intake import Intake, JournalFull
from transforms.feed.kept import KeptConnection
from transforms.feed.watch import Watch
from transforms.feed.worker import read, ring
from transforms.feed.worker.range import FeedRange
from transforms.feed.worker.ring import Ring
from transforms.feed.worker.sessions import WorkerFeed, connect
from transforms.held import ROOM, Held

FIRST = FeedRange(0)


def seek(process: Process, wanted: FeedRange, clock: StepClock) -> Bundle:
    """Show a range to a process that does not own it until it takes over."""
    bundle = process.bundle(wanted)
    for _ in range(100):
        if bundle.left.session != wanted.session:
            return bundle
        clock.advance(max(bundle.delay, 0.01))
        bundle = process.bundle(bundle.left)
    raise AssertionError("it never took over")


def test_what_came_is_claimed_and_evicted_when_the_range_comes_back(process: Process) -> None:
    opened = process.bundle(FIRST)
    assert (opened.outputs, opened.left.start, len(opened.left.session)) == ([], 0, 16)
    process.connections[0].receive(1, 2)
    first = process.bundle(opened.left)
    assert (first.ids, first.left.start) == ([1, 2], 2)
    process.connections[0].receive(3)
    assert process.sessions.pending_bytes(opened.left) > process.sessions.pending_bytes(first.left) > 0
    second = process.bundle(first.left)
    assert (second.ids, second.left.start) == ([3], 3)
    assert process.sessions.pending_bytes(opened.left) == process.sessions.pending_bytes(first.left) > 0
    assert len(process.connections) == 1


def test_a_bundle_that_failed_is_read_again(process: Process) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1, 2)
    first = process.bundle(opened.left)
    process.connections[0].receive(3)
    again = process.bundle(opened.left)
    assert (first.ids, again.ids, again.causes) == ([1, 2], [1, 2, 3], [])


def test_the_very_first_bundle_may_fail_too(process: Process) -> None:
    process.bundle(FIRST)
    process.connections[0].receive(1)
    assert process.bundle(FIRST).ids == [1]
    assert process.bundle(FIRST).ids == [1]
    assert len(process.connections) == 1


def test_a_checkpoint_ends_the_bundle_at_once_and_the_chunk_stays(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_EVENTS", 1)
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    process.connections[0].receive(2)
    cut = process.bundle(opened.left, checkpoint_after=1)
    assert (cut.ids, cut.left.start, cut.watermark) == ([1], 1, None)
    assert process.bundle(cut.left).ids == [2]


def test_a_bundle_ends_after_so_many_events_and_the_rest_follows_without_delay(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "BUNDLE_EVENTS", 2)
    monkeypatch.setattr(read, "CHUNK_EVENTS", 1)
    opened = process.bundle(FIRST)
    for number in range(3):
        process.connections[0].receive(number)
    bundle = process.bundle(opened.left)
    assert (bundle.ids, bundle.delay, bundle.watermark) == ([0, 1], 0.0, None)
    assert process.bundle(bundle.left).ids == [2]


def test_idle_the_runner_is_asked_to_wait_longer_and_longer(process: Process, clock: StepClock) -> None:
    bundle = process.bundle(FIRST)
    delays = [bundle.delay]
    for _ in range(6):
        clock.advance(bundle.delay)
        bundle = process.bundle(bundle.left)
        delays.append(bundle.delay)
    assert delays == [0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]
    process.connections[0].receive(1)
    clock.advance(bundle.delay)
    assert process.bundle(bundle.left).delay == 0.05


PATIENT = replace(FEED, idle_seconds=60.0)


def in_time(
    process: Process, wanted: FeedRange, feed: WorkerFeed = PATIENT
) -> tuple[threading.Thread, list[Bundle]]:
    """A bundle that waits for the feed, in a thread of its own."""
    found: list[Bundle] = []
    thread = threading.Thread(target=lambda: found.append(process.bundle(wanted, feed)), daemon=True)
    thread.start()
    return thread, found


def test_a_bundle_waits_for_the_feed_itself_and_ends_with_what_comes(process: Process) -> None:
    """Each pause that the runner is asked for may stay in its state."""
    opened = process.bundle(FIRST)
    thread, found = in_time(process, opened.left)
    process.connections[0].receive(1)
    thread.join(10)
    assert (found[0].ids, found[0].delay) == ([1], 0.05)


def test_the_bundle_that_opens_a_connection_does_not_wait(process: Process) -> None:
    """The ranges of the other connections may come after it, in the same bundle."""
    assert process.bundle(FIRST, PATIENT).outputs == []
    assert process.bundle(FeedRange(1), replace(PATIENT, connections=2)).outputs == []
    assert len(process.connections) == 2


def test_a_bundle_that_has_a_gap_to_give_does_not_wait_with_it(process: Process) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(letters=[DeadLetter("feed", "", "not_json: at byte 0", b"?")])
    assert process.bundle(opened.left, PATIENT).causes == ["not_json: at byte 0"]


def test_a_bundle_that_has_waited_long_enough_asks_for_a_short_pause(
    process: Process, clock: StepClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = process.bundle(FIRST)
    waits: list[float] = []

    def wait(ring: Ring, position: int, timeout: float, unless: object) -> None:
        waits.append(timeout)
        clock.advance(timeout)

    monkeypatch.setattr(Ring, "wait", wait)
    clock.advance(opened.delay)
    for _ in range(3):
        bundle = process.bundle(opened.left, replace(FEED, idle_seconds=5.0))
        assert bundle.delay == 0.05
        clock.advance(bundle.delay)
    assert sum(waits) == pytest.approx(15.0)


def test_a_drain_wakes_a_bundle_that_waits(process: Process) -> None:
    opened = process.bundle(FIRST)
    thread, found = in_time(process, opened.left)
    process.sessions.drain()
    thread.join(10)
    assert process.bundle(found[0].left).residual is None


def test_a_bundle_does_not_wait_while_another_connection_of_its_process_has_something(
    process: Process,
) -> None:
    """A runner may show both to one thread, one after the other."""
    several = replace(PATIENT, connections=2)
    first, second = process.bundle(FIRST, FEED), process.bundle(FeedRange(1), FEED)
    thread, found = in_time(process, first.left, several)
    process.connections[1].receive(1)
    thread.join(10)
    assert found[0].ids == []
    assert process.bundle(second.left, several).ids == [1]


def test_chunks_have_one_size_as_long_as_there_is_enough(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_EVENTS", 4)
    opened = process.bundle(FIRST)
    for first in (0, 3, 6, 9):
        process.connections[0].receive(first, first + 1, first + 2)
    process.connections[0].receive(12, letters=[DeadLetter("feed", "", "not_json: at byte 0", b"?")])
    process.connections[0].receive(13)
    bundle = process.bundle(opened.left)
    sizes = [len(one.events) if isinstance(one, Chunk) else one.cause for one in bundle.outputs]
    assert sizes == [4, 4, 4, 1, "not_json: at byte 0", 1]
    assert bundle.ids == list(range(14))
    firsts = [one.first for one in bundle.outputs if isinstance(one, Chunk)]
    assert firsts == [0, 4, 8, 12, 14]
    assert bundle.left.start == 15


def test_caught_up_the_watermark_is_the_present(process: Process, clock: StepClock) -> None:
    opened = process.bundle(FIRST)
    assert opened.watermark == clock.now()
    process.connections[0].receive(1)
    clock.advance(1)
    assert process.bundle(opened.left).watermark == clock.now()


def test_a_range_is_complete_until_its_last_chunk_came_or_the_feed_was_heard(
    process: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    assert opened.left.complete_until == clock.now()  # its birth
    process.connections[0].receive(1)
    came = clock.now()
    clock.advance(3)
    bundle = process.bundle(opened.left)
    assert bundle.left.complete_until == came
    connection = process.connections[0]
    assert connection.intake is not None
    connection.intake.heard()
    assert process.bundle(bundle.left).left.complete_until == came + 3


def test_strays_and_gaps_come_again_with_their_bundle(process: Process) -> None:
    opened = process.bundle(FIRST)
    connection = process.connections[0]
    connection.receive(1, letters=[DeadLetter("feed", "", "not_json: at byte 0", b"?")])
    assert connection.intake is not None
    connection.intake.open_gap("cut")
    connection.live()
    for _ in range(2):
        bundle = process.bundle(opened.left)
        assert (bundle.ids, bundle.causes) == ([1], ["not_json: at byte 0", "feed_gap: cut"])
    assert process.bundle(bundle.left).outputs == []


def test_a_range_that_moved_and_comes_back_in_time_goes_on_where_it_was(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    bundle = process.bundle(opened.left)
    process.connections[0].receive(2)
    moved = other.bundle(bundle.left)
    assert (moved.outputs, moved.delay, moved.left.session) == ([], read.SEEK_DELAY, bundle.left.session)
    clock.advance(1)
    moved = other.bundle(moved.left)
    back = process.bundle(moved.left)
    assert (back.ids, back.causes, back.left.sought_since) == ([2], [], 0.0)
    assert (len(process.connections), len(other.connections)) == (1, 0)
    assert (process.elsewhere, other.elsewhere) == (0, 2)


def test_a_process_that_takes_over_records_a_gap_until_it_is_live(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    complete_until = clock.now()
    bundle = process.bundle(opened.left)
    clock.advance(2)
    began = clock.now()
    taken = seek(other, bundle.left, clock)
    assert clock.now() - began == pytest.approx(FEED.seek_seconds, abs=0.1)
    assert (taken.outputs, taken.left.start, taken.left.complete_until) == ([], 0, complete_until)
    clock.advance(1)
    other.connections[0].live()
    live = clock.now()
    other.connections[0].receive(5)
    went_on = other.bundle(taken.left)
    assert went_on.ids == [5]
    [gap] = [one for one in went_on.outputs if isinstance(one, DeadLetter)]
    assert gap.cause == "feed_gap: the process that read the feed did not come back"
    assert msgspec.json.decode(gap.raw)["seconds"] == pytest.approx(live - complete_until, abs=0.001)


def test_a_process_that_dies_before_it_claimed_anything_leaves_a_gap_from_its_birth(
    process: Process, other: Process, clock: StepClock
) -> None:
    born = clock.now()
    opened = process.bundle(FIRST)
    process.connections[0].live()
    clock.advance(1)
    process.connections[0].receive(*range(1000))
    clock.advance(1)
    taken = seek(other, opened.left, clock)  # the first one is gone
    clock.advance(1)
    other.connections[0].live()
    live = clock.now()
    [letter] = [one for one in other.bundle(taken.left).outputs if isinstance(one, DeadLetter)]
    record = msgspec.json.decode(letter.raw)
    assert letter.cause == "feed_gap: the process that read the feed did not come back"
    assert record["seconds"] == pytest.approx(live - born, abs=0.001)


def test_an_open_gap_s_beginning_does_not_move_by_what_else_is_claimed(
    process: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    connection = process.connections[0]
    connection.receive(1)
    heard = clock.now()
    bundle = process.bundle(opened.left)
    assert bundle.left.complete_until == heard
    clock.advance(5)
    assert connection.intake is not None
    connection.intake.open_gap("cut")
    clock.advance(2)
    process.sessions._open[("reader", 0)].ring.note([DeadLetter("feed", "", "feed_gap: of its own", b"{}")])
    claimed = process.bundle(bundle.left)
    assert claimed.causes == ["feed_gap: of its own"]
    assert claimed.left.complete_until == heard
    assert process.bundle(claimed.left).left.complete_until == heard


def test_a_gap_lasts_over_processes_that_never_went_live(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    complete_until = clock.now()
    bundle = process.bundle(opened.left)
    taken = seek(other, bundle.left, clock)
    back = seek(process, taken.left, clock)
    assert back.left.complete_until == complete_until


def test_a_process_that_read_before_closes_that_when_it_takes_over_again(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    bundle = process.bundle(opened.left)
    process.connections[0].receive(2, 3)
    taken = seek(other, bundle.left, clock)
    back = seek(process, taken.left, clock)
    assert len(process.connections) == 2
    assert back.causes == [
        "feed_gap: 2 received events were dropped: the runner did not come back to their process"
    ]


def test_a_session_that_nobody_resumes_closes_and_the_next_bundle_says_what_was_dropped(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1, 2)
    bundle = process.bundle(opened.left)
    process.connections[0].receive(3)
    clock.advance(FEED.orphan_seconds - 1)
    assert process.connections[0].intake is not None
    assert process.bundle(bundle.left).ids == [3]
    process.connections[0].receive(4)
    clock.advance(FEED.orphan_seconds)
    wait_for(lambda: process.connections[0]._end.is_set())
    wait_for(lambda: process.sessions.pending_bytes(bundle.left) == 0)
    another = seek(process, replace(bundle.left, connection=0), clock)
    repeated = process.bundle(replace(bundle.left, connection=0))  # as when the bundle fails after all
    for each in (another, repeated):
        assert [cause for cause in each.causes if "1 received events were dropped" in cause]


def test_going_back_to_before_what_is_in_memory_is_a_gap(process: Process, clock: StepClock) -> None:
    opened = process.bundle(FIRST)
    born = clock.now()
    clock.advance(1)
    process.connections[0].receive(1)
    first = process.bundle(opened.left)
    clock.advance(1)
    process.connections[0].receive(2)
    second = process.bundle(first.left)
    clock.advance(1)
    process.connections[0].receive(3)
    process.bundle(second.left)
    restored = process.bundle(first.left)
    assert restored.ids == [3]
    [cause] = restored.causes
    assert cause.startswith("feed_gap: the runner went back")
    [letter] = [one for one in restored.outputs if isinstance(one, DeadLetter)]
    assert msgspec.json.decode(letter.raw)["seconds"] == 2.0  # from event 1 on, until 3 came
    from_the_start = process.bundle(FIRST)
    [letter] = [one for one in from_the_start.outputs if isinstance(one, DeadLetter)]
    assert msgspec.json.decode(letter.raw)["seconds"] == clock.now() - born


def test_a_bundle_that_the_runner_gave_up_claims_nothing_once_another_one_reads(process: Process) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    given_up = process.sessions.hold(FEED, opened.left)
    assert given_up is not None
    assert given_up.is_valid
    assert process.bundle(opened.left).ids == [1]
    assert not given_up.is_valid


@pytest.mark.parametrize("how", ["truncated", "signalled"])
def test_a_drain_flushes_what_the_connection_had_in_hand_and_ends(process: Process, how: str) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    process.connections[0].at_the_end = events(2)
    if how == "signalled":
        process.sessions.drain()
    wanted = replace(opened.left, draining=how == "truncated")
    drained = process.bundle(wanted)
    assert (drained.ids, drained.residual) == ([1, 2], None)
    again = process.bundle(wanted)  # had the bundle failed
    assert (again.ids, again.residual) == ([1, 2], None)


def test_a_drain_before_the_first_bundle_opens_nothing(process: Process) -> None:
    assert process.bundle(replace(FIRST, draining=True)).residual is None
    assert process.connections == []


def test_a_drain_whose_owner_is_gone_ends_with_a_gap(
    process: Process, other: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    bundle = process.bundle(opened.left)
    drained = other.bundle(replace(bundle.left, draining=True))
    while drained.residual is not None:
        clock.advance(1)
        drained = other.bundle(drained.residual)
    assert [cause.split(":")[0] for cause in drained.causes] == ["feed_gap"]
    assert other.connections == []


def test_the_end_of_the_input_ends_the_range(process: Process) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    process.connections[0].interrupt()
    wait_for(lambda: process.sessions._open[("reader", 0)].over)
    ended = process.bundle(opened.left)
    assert (ended.ids, ended.residual) == ([1], None)


def test_a_connection_that_failed_fails_the_bundle_and_a_later_one_opens_another(
    process: Process, clock: StepClock
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    process.connections[0].failure = OSError("no such file: ca.pem")
    process.connections[0].interrupt()
    wait_for(lambda: process.sessions._open[("reader", 0)].over)
    with pytest.raises(RuntimeError, match="no such file"):
        process.bundle(opened.left)
    another = seek(process, opened.left, clock)
    assert len(process.connections) == 2
    assert another.causes == ["feed_gap: 1 received events were dropped: reading failed"]


def test_connections_have_sessions_of_their_own_and_gaps_say_which(process: Process) -> None:
    feed = replace(FEED, connections=2)
    opened = [process.bundle(FeedRange(number), feed) for number in (0, 1)]
    process.connections[1].receive(1)
    assert [process.bundle(one.left, feed).ids for one in opened] == [[], [1]]
    intake = process.connections[1].intake
    assert intake is not None
    intake.open_gap("cut")
    intake.close_gap()
    assert process.bundle(opened[1].left, feed).causes == ["feed_gap: connection 2 of 2: cut"]


def test_each_connection_has_one_transport(process: Process) -> None:
    feed = replace(FEED, feed=replace(FEED.feed, transport="both"), connections=2)
    for number in (1, 0):
        process.bundle(FeedRange(number), feed)
    assert [each.settings.transport for each in process.connections] == ["websocket", "sse"]


def test_ranges_that_live_in_one_process_watch_each_other(process: Process, other: Process) -> None:
    feed = replace(FEED, connections=2)
    for number in (0, 1):
        process.bundle(FeedRange(number), feed)
    process.bundle(FeedRange(0), replace(feed, reader="another job's"))
    other.bundle(FeedRange(0), feed)
    mine, too, another = process.watches
    assert mine is too
    assert another is not mine
    assert other.watches[0] is not mine
    wait_for(lambda: all(each.looks for each in process.connections))


def test_a_worker_s_streams_are_compared_by_who_is_silent(clock: StepClock) -> None:
    """Its rings do not know which ids are new."""
    intake: Intake = Ring(100_000, clock)
    watch = Watch(clock)
    coverages = [Coverage(intake, clock, watch) for _ in range(2)]
    streams = [coverage.live() for coverage in coverages]
    for number in range(20):
        for coverage, stream in list(zip(coverages, streams, strict=True))[: 1 if number > 5 else 2]:
            coverage.took(stream, clock.monotonic(), events(number), intake.append(events(number), ()))
        clock.advance(0.5)
        watch.look()
    assert [bool(stream.watched.suspect) for stream in streams] == [False, True]
    assert isinstance(connect(FEED, clock, "feed", watch), KeptConnection)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """What the destinations' keys of the process hold."""
    made = Held()
    monkeypatch.setattr(read, "HELD", made)
    monkeypatch.setattr(ring, "HELD", made)
    return made


def test_nothing_is_read_while_a_destination_s_key_has_no_room(
    process: Process, clock: StepClock, held: Held
) -> None:
    opened = process.bundle(FIRST)
    process.connections[0].receive(1, 2)
    held.note("splunk", "000", 9, ROOM - 1, clock.monotonic())
    first = process.bundle(opened.left)
    assert first.ids == [1, 2], "a key that has room stops nothing"
    held.note("splunk", "000", 9, ROOM, clock.monotonic())
    process.connections[0].receive(3)
    stopped = process.bundle(first.left)
    assert (stopped.outputs, stopped.left.start, stopped.watermark) == ([], 2, None)
    assert stopped.delay == read.MAX_DELAY, "or the runner would ask again at once, for ever"
    held.note("splunk", "000", 9, ROOM - 1, clock.monotonic())
    assert process.bundle(stopped.left).ids == [3]


def test_a_bundle_that_meets_a_key_without_room_gives_what_it_has_claimed(
    process: Process, clock: StepClock, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read, "CHUNK_EVENTS", 1)
    opened = process.bundle(FIRST)
    process.connections[0].receive(1)
    process.connections[0].receive(2)
    tracker, outputs = TrackerView(opened.left), []
    for output in read.read_bundle(process.sessions, FEED, tracker, Watermark(), clock):
        outputs.append(output)
        held.note("splunk", "000", 9, ROOM, clock.monotonic())
    assert [len(one.events) for one in outputs if isinstance(one, Chunk)] == [1]
    assert tracker.residual is not None
    assert tracker.residual.start == 1


def test_without_room_a_bundle_waits_itself_and_looks_up_for_a_drain(
    process: Process, clock: StepClock, held: Held
) -> None:
    opened = process.bundle(FIRST, PATIENT)
    process.connections[0].receive(1)
    held.note("splunk", "000", 9, ROOM, clock.monotonic())
    found: list[Bundle] = []
    thread = threading.Thread(target=lambda: found.append(process.bundle(opened.left, PATIENT)))
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    process.sessions.drain()
    thread.join(10)
    assert not thread.is_alive()
    assert process.bundle(found[0].left, PATIENT).ids == [1], "a drain takes what there is, room or not"


def test_a_gap_s_message_says_which_destination_stops_the_reading(
    process: Process, clock: StepClock, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ring, "PUSH_BACK", 0.0)
    full = Ring(1000, clock)
    full.append(events(*range(10)), ())
    with pytest.raises(JournalFull, match="wait for the runner"):
        full.append(events(11), ())
    held.note("splunk", "000", 9, ROOM, clock.monotonic(), "Splunk answered 503")
    with pytest.raises(JournalFull, match=r"splunk has not taken 2000 MB of key 000 \(Splunk answered 503\)"):
        full.append(events(11), ())
