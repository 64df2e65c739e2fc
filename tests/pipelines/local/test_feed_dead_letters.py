"""The feed's dead letters that cannot be written: kept, said now and then, and written once they can be."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from pipelines.local.feed_dead_letters import FeedDeadLetters
from tests.transforms.feed.journal.support import open_journal
from transforms.clock import SystemClock
from transforms.dead_letter import DeadLetter


class SkippingClock(SystemClock):
    """Whoever waits finds that the time has passed."""

    def __init__(self) -> None:
        self.waited = 0.0

    def monotonic(self) -> float:
        return self.waited

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        self.waited += timeout or 0.0
        return event.wait(0.001)


def test_what_cannot_be_written_for_an_hour_is_said_every_five_minutes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SkippingClock()
    written: list[DeadLetter] = []
    done = threading.Event()

    def write(letter: DeadLetter) -> None:
        if clock.waited < 3600.0:
            raise OSError("read-only file system")
        written.append(letter)
        done.set()

    with contextlib.closing(open_journal(tmp_path)) as journal:
        journal.append([], [DeadLetter("feed", "", "not_json", b"{")])
        letters = FeedDeadLetters(journal, write, clock, uniform=lambda low, high: high)
        letters.start()
        assert done.wait(10.0)
        assert letters.finish(10.0)
    assert [letter.raw for letter in written] == [b"{"]
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert set(said) == {
        "the feed's dead letters are kept in the journal and tried again: read-only file system"
    }
    assert 11 <= len(said) <= 13
