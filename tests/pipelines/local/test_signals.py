"""Signals in a process of its own: the first sets the event, the second ends the process at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PROGRAM = """
import logging, sys, threading
logging.basicConfig(level="INFO", stream=sys.stdout, format="%(levelname)s %(message)s")
from pipelines.local.signals import stop_on_signals
stop = stop_on_signals()
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
if sys.argv[1] == "hangs":
    threading.Event().wait()
"""


@pytest.fixture(params=["ends", "hangs"])
def process(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, request.param], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout is not None
        assert started.stdout.readline() == "ready\n"
        yield started
        started.kill()


def said(process: subprocess.Popen[str], lines: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(lines)]


@pytest.mark.parametrize("process", ["ends"], indirect=True)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_asks_for_the_drain(process: subprocess.Popen[str], number: signal.Signals) -> None:
    process.send_signal(number)
    assert set(said(process, 2)) == {
        f"INFO {number.name}: stopping in good order; a second signal stops at once",
        "stopping",
    }
    assert process.wait(10) == 0


@pytest.mark.parametrize("process", ["hangs"], indirect=True)
@pytest.mark.parametrize(
    ("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)]
)
def test_the_second_signal_stops_at_once(
    process: subprocess.Popen[str], first: signal.Signals, second: signal.Signals
) -> None:
    process.send_signal(first)
    said(process, 2)
    process.send_signal(second)
    assert said(process, 1) == [
        f"WARNING {second.name}: stopping at once; on one machine the journal keeps what is not delivered"
    ]
    assert process.wait(10) == 1
