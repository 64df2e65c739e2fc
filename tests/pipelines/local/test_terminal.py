"""The live lines: what they say, that they fit, and that log lines stand whole above them."""

from __future__ import annotations

import io
import logging
import sys

import pytest
from rich.console import Console

from pipelines.local import logs
from pipelines.local.snapshot import Rates, Snapshot
from pipelines.local.terminal import Terminal, picture
from pipelines.local.verdict import duration
from tests.pipelines.local.looks import AT, LIVE, destination, down, run
from transforms.feed.journal.cursor import Books

PAGE = "http://127.0.0.1:8787/"
NAMES = ("bigquery", "datadog", "files", "kafka", "s3", "audit-of-the-other-company")


def shown(snapshot: Snapshot, width: int = 80) -> str:
    """The picture's text on a terminal of that width."""
    out = io.StringIO()
    rates = Rates()
    rates.add(snapshot)
    Console(file=out, width=width, color_system=None).print(picture(snapshot, rates, PAGE))
    return out.getvalue()


def test_healthy_run_says_so_and_where_the_page_is() -> None:
    text = shown(run(destination("files"), destination("splunk")))
    assert "All is well." in text
    assert "1,234 received" in text
    assert "last event 0.4 s ago · 1 of 1 connected" in text
    assert "books balanced · running 90 s · http://127.0.0.1:8787/" in text


def test_trouble_says_what_when_and_what_to_do() -> None:
    text = " ".join(shown(run(destination("files"), down("splunk"))).split())
    assert "splunk is down; its events are kept, the others go on." in text
    assert "Server is busy (code 9, status 503). The events are kept. Next try in 3.0 s." in text
    assert "If it lasts, look at the service." in text


def test_wrong_books_are_named() -> None:
    wrong = Books(received=100, delivered=80, dead_lettered=0, pending=10)
    assert "books wrong: splunk" in shown(run(destination("splunk", books=wrong)))


def test_what_is_not_asked_for_has_a_column_when_there_is_any() -> None:
    assert "filtered" not in shown(run(destination("files")))
    books = Books(received=1000, delivered=100, dead_lettered=0, pending=10, filtered=890)
    text = shown(run(destination("splunk", books=books), destination("files")))
    assert "delivered  filtered  pending" in text
    (row,) = [line for line in text.splitlines() if line.startswith("splunk ")]
    assert row.split()[1:4] == ["100", "890", "10"]
    assert "books balanced" in text


@pytest.mark.parametrize("width", [80, 120])
def test_eight_destinations_with_large_numbers_fit(width: int) -> None:
    books = Books(received=2_000_000_100, delivered=1_000_000_000, dead_lettered=100, pending=1_000_000_000)
    items = [destination(name, books=books, lag=7000.0) for name in NAMES]
    text = shown(run(*items, down("splunk"), down("custom")), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for name in NAMES[:5]:
        (row,) = [line for line in text.splitlines() if line.startswith(f"{name} ") and "behind" in line]
        assert "1,000,000,000" in row


@pytest.mark.parametrize(("no_color", "red"), [("", True), ("1", False)])
def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch, no_color: str, red: bool) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm-256color")
    out = io.StringIO()
    Console(file=out, width=80, force_terminal=True).print(picture(run(down("splunk")), Rates(), PAGE))
    assert ("\x1b[1;31m" in out.getvalue()) == red


def test_rates_are_over_half_a_minute() -> None:
    rates = Rates()
    for second in range(100):
        books = Books(received=second * 20, delivered=second * 10, dead_lettered=0, pending=second * 10)
        rates.add(run(destination("a", books=books), at=AT + second, received=second * 20))
    assert rates.received == pytest.approx(20.0)
    assert rates.delivered("a") == pytest.approx(10.0)
    assert rates.delivered("unknown") == 0.0
    rates.add(run(at=AT, received=3))  # the wall clock was set back
    assert rates.received == 0.0


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.01, "0 s"), (0.44, "0.4 s"), (12.3, "12 s"), (119.0, "119 s"), (180.0, "3 min"), (7300.0, "2 h")],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def tty(monkeypatch: pytest.MonkeyPatch) -> Tty:
    """Standard error and standard output on one terminal, with logging set up as the job does."""
    stream = Tty()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("text", "INFO")
    return stream


def test_log_lines_stand_whole_above_the_live_lines(tty: Tty) -> None:
    console = Console(file=tty, width=80, height=24, force_terminal=True, no_color=True)
    with Terminal(lambda: run(destination("files")), PAGE, live=True, console=console):
        for number in range(20):
            logging.getLogger("grantex.run").warning("line %d", number)
    lines = emulate(tty.getvalue())
    told = [line for line in lines if " WARNING run: line " in line]
    assert [line.rpartition(" ")[2] for line in told] == [str(number) for number in range(20)]
    after = lines[lines.index(told[-1]) :]
    assert sum("All is well." in line for line in lines) == 1, "the final state stays, once"
    assert any("All is well." in line for line in after)


def test_log_goes_where_it_went_before_once_the_live_lines_are_over(tty: Tty) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Terminal(lambda: run(connections=[LIVE]), live=True, console=console):
        pass
    logging.getLogger("grantex.run").info("the end")
    assert tty.getvalue().endswith("INFO run: the end\n")


def test_without_a_terminal_nothing_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with Terminal(run, PAGE, live=False):
        pass
    assert capsys.readouterr().out == ""


def emulate(text: str) -> list[str]:
    """The lines that are left on a terminal: only what rich sends is understood."""
    lines: list[str] = [""]
    row = 0
    while text:
        if text.startswith("\x1b["):
            end = next(i for i in range(2, len(text)) if text[i].isalpha())
            kind, number = text[end], int(text[2:end]) if text[2:end].isdigit() else 1
            if kind == "A":
                row = max(0, row - number)
            elif kind == "K":
                lines[row] = ""
            text = text[end + 1 :]
        else:
            sign, text = text[0], text[1:]
            if sign == "\n":
                row += 1
                if row == len(lines):
                    lines.append("")
            elif sign != "\r":
                lines[row] += sign
    return [line.rstrip() for line in lines]
