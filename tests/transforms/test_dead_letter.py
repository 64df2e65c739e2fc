"""What is shown of dead letters: counted by cause, the latest with their ids and never their bytes."""

from __future__ import annotations

from transforms.dead_letter import LATEST, MAX_CAUSES, Tally


def test_the_latest_of_each_cause_come_newest_first_however_many_another_has() -> None:
    tally = Tally()
    tally.add("too_large: 5 MB", "evt_0", 1.0)
    for n in range(1, 100):
        tally.add("bad_time: at byte 3", f"evt_{n}", float(n))
    assert tally.counts == {"too_large": 1, "bad_time": 99}
    latest = tally.latest(ahead=1000.0)
    assert latest["too_large"] == [("evt_0", 1001.0)]
    assert latest["bad_time"] == [(f"evt_{n}", 1000.0 + n) for n in range(99, 99 - LATEST, -1)]


def test_it_is_bounded_whatever_reasons_a_writer_gives() -> None:
    tally = Tally()
    for n in range(10 * MAX_CAUSES):
        tally.add(f"cause_{n}", "evt", 1.0)
    assert tally.counts.total() == 10 * MAX_CAUSES
    assert len(tally.latest()) == len(tally.counts) == MAX_CAUSES + 1
