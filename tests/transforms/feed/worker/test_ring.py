"""The ring: offsets, eviction by commits alone, push-back, gaps that have offsets like events."""

from __future__ import annotations

import threading

import msgspec
import pytest

from tests.transforms.feed.worker.support import StepClock, events
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import JournalFull
from transforms.feed.worker import ring as module
from transforms.feed.worker.ring import ENTRY_BYTES, EVENT_BYTES, Ring


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUSH_BACK", 0.01)


@pytest.fixture
def ring(clock: StepClock) -> Ring:
    return Ring(10_000, clock)


def big(size: int) -> Event:
    return Event("evt_big", "t", "", b"x" * size)


def test_what_came_is_read_in_order_and_together(ring: Ring) -> None:
    ring.append(events(1, 2), ())
    ring.append(events(3), ())
    part = ring.read(0, 500)
    assert part is not None
    assert (part.first, part.end, [event.id for event in part.events]) == (0, 3, ["evt_1", "evt_2", "evt_3"])
    assert ring.read(3, 500) is None


def test_a_part_has_about_as_many_events_as_asked_for_and_cuts_nothing_that_came_together(ring: Ring) -> None:
    ring.append(events(1, 2, 3), ())
    ring.append(events(4), ())
    first = ring.read(0, 2)
    assert first is not None
    assert (first.first, first.end) == (0, 3)
    second = ring.read(first.end, 2)
    assert second is not None
    assert (second.first, second.end) == (3, 4)


def test_strays_have_offsets_after_the_events_they_came_with(ring: Ring) -> None:
    ring.append(events(1), [DeadLetter("feed", "", "not_json", b"?")])
    ring.append(events(2), ())
    first = ring.read(0, 500)
    assert first is not None
    assert (first.first, first.end, len(first.events), len(first.letters)) == (0, 2, 1, 1)
    second = ring.read(2, 500)
    assert second is not None
    assert (second.first, second.end, len(second.events), len(second.letters)) == (2, 3, 1, 0)


def test_reading_forgets_nothing_and_evicting_what_is_committed(ring: Ring) -> None:
    ring.append(events(1, 2), ())
    ring.append(events(3), ())
    assert ring.read(0, 500) == ring.read(0, 500)
    ring.evict(2)
    assert (ring.first, ring.end) == (2, 3)
    assert ring.bytes == ring.pending_bytes(2) == ENTRY_BYTES + EVENT_BYTES + len(events(3)[0].raw)
    ring.evict(3)
    assert (ring.first, ring.end, ring.bytes) == (3, 3, 0)


def test_a_full_ring_refuses_and_keeps_nothing_of_the_call(ring: Ring) -> None:
    ring.append([big(9000)], ())
    with pytest.raises(JournalFull, match="wait for the runner"):
        ring.append([big(2000)], [DeadLetter("feed", "", "not_json", b"?")])
    assert ring.end == 1
    ring.evict(1)
    ring.append([big(2000)], ())
    assert ring.end == 2


def test_an_empty_ring_takes_what_is_larger_than_itself(ring: Ring) -> None:
    ring.append([big(50_000)], ())
    assert ring.events_from(0) == 1


def test_whoever_waits_for_room_goes_on_when_it_comes(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PUSH_BACK", 30.0)
    ring.append([big(9000)], ())
    waiting = threading.Thread(target=ring.append, args=([big(2000)], ()))
    waiting.start()
    waiting.join(0.05)
    assert (waiting.is_alive(), ring.end) == (True, 1)
    ring.evict(1)
    waiting.join(10)
    assert ring.end == 2


def test_a_connection_that_ends_may_hand_over_what_it_has_in_hand(ring: Ring) -> None:
    ring.append([big(9000)], ())
    ring.last_call()
    ring.append([big(9000)], ())
    assert ring.events_from(0) == 2


def test_a_closed_ring_takes_nothing_and_counts_what_it_refused(ring: Ring) -> None:
    ring.close()
    with pytest.raises(JournalFull):
        ring.append(events(1, 2), ())
    assert (ring.refused, ring.end) == (2, 0)


def test_a_gap_begins_when_the_feed_was_last_heard_and_is_read_when_it_ends(
    ring: Ring, clock: StepClock
) -> None:
    ring.append(events(1), ())
    heard = clock.now()
    clock.advance(5)
    ring.open_gap("cut")
    clock.advance(2)
    assert ring.end == 1
    ring.close_gap()
    part = ring.read(1, 500)
    assert part is not None
    [letter] = part.letters
    assert letter.cause == "feed_gap: cut"
    record = msgspec.json.decode(letter.raw)
    assert (record["seconds"], record["reason"], letter.at) == (7.0, "cut", heard + 7)


def test_before_the_feed_was_ever_heard_nothing_can_be_missing(ring: Ring) -> None:
    ring.open_gap("not running")
    ring.close_gap()
    assert ring.end == 0


def test_an_open_gap_is_not_opened_again(ring: Ring, clock: StepClock) -> None:
    ring.open_gap("first", since=clock.now() - 10)
    ring.open_gap("second", since=clock.now() - 1)
    ring.close_gap()
    part = ring.read(0, 500)
    assert part is not None
    assert [letter.cause for letter in part.letters] == ["feed_gap: first"]


def test_quiet_is_as_of_the_last_sign_of_life_and_never_inside_a_gap(ring: Ring, clock: StepClock) -> None:
    assert ring.quiet_since(0) == 0.0
    ring.append(events(1), ())
    assert ring.quiet_since(0) is None
    clock.advance(1)
    ring.heard()
    heard = clock.now()
    clock.advance(1)
    assert ring.quiet_since(1) == heard
    ring.open_gap("cut")
    clock.advance(1)
    ring.heard()
    assert ring.quiet_since(1) == heard


def test_arrival_times_never_step_back(ring: Ring, clock: StepClock) -> None:
    ring.append(events(1), ())
    then = clock.now()
    clock.advance(-60)
    ring.append(events(2), ())
    part = ring.read(1, 500)
    assert part is not None
    assert part.oldest == then


def test_a_part_is_complete_until_what_the_connection_had_heard_with_it(ring: Ring, clock: StepClock) -> None:
    """Not until it was taken: after a stall more waits in the socket, created before that."""
    ring.heard(clock.now() - 9)
    ring.append(events(1), (), clock.now() - 7)
    ring.append(events(2), (), clock.now() - 3)
    first, both = ring.read(0, 1), ring.read(0, 500)
    assert first is not None
    assert both is not None
    assert (first.heard_until, both.heard_until) == (clock.now() - 7, clock.now() - 3)
    assert ring.quiet_since(2) == clock.now() - 3
    assert ring.heard_before == clock.now() - 9
    ring.evict(1)
    assert ring.heard_before == clock.now() - 7


def test_a_gap_is_closed_when_the_stream_was_live_and_not_when_that_is_said(
    ring: Ring, clock: StepClock
) -> None:
    ring.heard(clock.now() - 9)
    ring.open_gap("cut", clock.now() - 8)
    ring.close_gap(clock.now() - 2)
    part = ring.read(0, 500)
    assert part is not None
    assert msgspec.json.decode(part.letters[0].raw)["seconds"] == 6.0
    assert part.heard_until == clock.now() - 2
