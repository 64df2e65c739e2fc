"""What a person sees of a replay: a bar in a terminal, lines in a log, a table at the end."""

from __future__ import annotations

import io
import logging
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from pipelines.local.replay_shown import TELL_EVERY, Outcome, Shown, table
from transforms.archive.choice import Archive
from transforms.archive.sources import Directory

SPLUNK = Outcome(
    "splunk",
    Counter({"events": 1200, "other types": 7, "no event: feed_gap": 2, "rebuilt": 5}),
    Counter({"chosen": 1000, "repeats": 12, "have a receipt": 0}),
    delivered=998,
    dead_lettered=2,
)
FILES = Outcome("files", Counter({"events": 600}), failure="interrupted. The same command goes on.")


def lanes() -> Any:
    return [SimpleNamespace(outcome=each, work=50) for each in (SPLUNK, FILES)]


def test_the_table_says_what_was_left_out_and_what_is_left_to_do() -> None:
    said = table(Archive(Directory("letters", letters=True)), [SPLUNK, FILES], "kept")
    assert said.splitlines() == [
        "From dead_letters:letters: 1,200 events; 5 of them rebuilt from columns (the same content, other "
        "bytes); left out: 7 other types, 2 no event: feed_gap",
        "destination             delivered  dead letters  left out",
        "splunk                        998             2  12 repeats",
        "files                           0             0  -",
        "  not complete: interrupted. The same command goes on.",
        "Dead letters of this replay: kept",
    ]
    assert not SPLUNK.complete
    assert not FILES.complete
    assert Outcome("s3", Counter({"events": 3, "torn last lines": 1}), delivered=3).complete
    assert not Outcome("s3", Counter({"damaged": 1}), delivered=3).complete


def test_a_terminal_shows_how_far_each_destination_is() -> None:
    text = io.StringIO()
    with Shown(lanes(), 100, Console(file=text, force_terminal=True, width=100)) as shown:
        shown.look()
    assert "splunk" in text.getvalue()
    assert "50%" in text.getvalue()
    assert "998 delivered" in text.getvalue()


def test_a_log_says_it_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    caplog.set_level(logging.INFO)
    with Shown(lanes(), 100, Console(file=io.StringIO()), lambda: now) as shown:
        shown.look()
        assert caplog.messages == []
        now += TELL_EVERY
        shown.look()
        shown.look()
    assert caplog.messages == ["splunk: 50% read, 998 delivered", "files: 50% read, 0 delivered"]
