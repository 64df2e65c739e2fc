"""What the whole suite shares: real servers, who may start them, a network of their own for some tests."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from pipelines.local import logs
from transforms import secret

pytest_plugins = ["pytester", "tests.servers.tiers", "tests.servers.own_network", "tests.servers.shared"]
_LOGGERS = [logging.getLogger(name) for name in ("", *logs.QUIET, *logs.REPEATING)]


MEMORY = Path("/dev/shm")
ROOM = 4 << 30  # bytes; all files of a run together are a tenth of that, as those of a test end with it


def pytest_configure(config: pytest.Config) -> None:
    """Where there is room, tests have their files in memory: to wait for a disk, each time a journal is
    closed, is a third of their time, and nobody pulls the plug. `--basetemp` is another place.

    A shell that puts a job behind makes it deaf to SIGINT, and so all that the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if MEMORY.is_dir() and not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC and free(MEMORY) > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def free(place: Path) -> int:
    """Bytes of a file system that are of use: of one in memory no more than there is of that."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        found = next(line for line in lines if line.startswith("MemAvailable:"))
    return min(shutil.disk_usage(place).free, 1024 * int(found.split()[1]))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What is imported and collected stays. To look whether any of its 700,000 objects can go is a third of
    what the collection takes, and half a second of each full look later, of which pytest ends with five."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in what a test has logged (an odd file name) would end the worker that reports it."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture
def streams_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However young a stream is; that it is held has tests of its own (test_connection_ending.py)."""
    monkeypatch.setattr("transforms.feed.request.MIN_STREAM_SECONDS", 0.0)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What a program in this process sets up for good is undone: its log (all of logs.configure), and what it
    takes out of texts (the word "splunk", where a test gave that as a token)."""
    handlers = logging.getLogger().handlers
    streams = [one for one in handlers if type(one) is logging.StreamHandler]
    levels = [(logger.level, logger.propagate) for logger in _LOGGERS]
    hooks = sys.excepthook, threading.excepthook
    known, pattern, longest = OrderedDict(secret._known), secret._pattern, secret._longest
    yield
    handlers[:] = [*(one for one in handlers if type(one) is not logging.StreamHandler), *streams]
    for logger, (level, propagate) in zip(_LOGGERS, levels, strict=True):
        if logger.level != level:  # setLevel goes through every logger there is
            logger.setLevel(level)
        logger.propagate = propagate
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    secret._known, secret._pattern, secret._longest = known, pattern, longest
