"""One pool of C's memory for all threads of a process, and garbage looked for seldom."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
from collections.abc import Iterator

import pytest

from transforms.allocator import THRESHOLDS, collect_seldom

pytestmark = pytest.mark.slow  # each test starts an interpreter

# Threads that hold a block each at the same time, and how many arenas there are then.
ARENAS = """
import ctypes, re, sys, tempfile, threading
{first}
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
together = threading.Barrier(6)
def hold():
    block = bytearray(100_000)
    together.wait()
    together.wait()
threads = [threading.Thread(target=hold) for _ in range(5)]
for thread in threads:
    thread.start()
together.wait()
with tempfile.TemporaryFile() as file:
    stream = ctypes.c_void_p(libc.fdopen(file.fileno(), b"w"))
    libc.malloc_info(0, stream)
    libc.fflush(stream)
    file.seek(0)
    print(len(re.findall(rb"<heap nr", file.read())))
together.wait()
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library's allocator is another")


def arenas(first: str, **environment: str) -> int:
    env = {**os.environ, **environment}
    done = subprocess.run(
        [sys.executable, "-c", ARENAS.format(first=first)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


SHARE = "from transforms.allocator import share_one_arena; print(share_one_arena(), file=sys.stderr)"


@glibc
def test_threads_share_one_arena() -> None:
    assert arenas("") > 1
    assert arenas(SHARE) == 1


@glibc
def test_what_the_user_said_of_arenas_holds() -> None:
    assert arenas(SHARE, MALLOC_ARENA_MAX="3") == 3
    assert arenas(SHARE, GLIBC_TUNABLES="glibc.malloc.arena_max=3") == 3


@glibc
def test_a_job_shares_one_arena_from_its_first_import_of_beam_on() -> None:
    assert arenas("import pipelines.beam") == 1


@pytest.fixture
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((700, 10, 10), THRESHOLDS),
        ((2000, 10, 10), THRESHOLDS),
        ((0, 10, 10), (0, 10, 10)),
        ((50_000, 5, 5), (50_000, 5, 5)),
    ],
)
@pytest.mark.usefixtures("thresholds")
def test_garbage_is_looked_for_seldom_unless_somebody_wants_it_more_seldom(
    before: tuple[int, int, int], after: tuple[int, int, int]
) -> None:
    gc.set_threshold(*before)
    collect_seldom()
    assert gc.get_threshold() == after


BEGIN = """
import gc, os
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]))
import pipelines.beam
assert looks.count(2) == 0, looks
from transforms.allocator import THRESHOLDS
assert gc.get_threshold() == THRESHOLDS
assert gc.isenabled() and gc.get_freeze_count() > 100_000
assert len(os.listdir("/proc/self/task")) == 1, "somebody has started threads"
"""


def test_what_beam_makes_at_its_import_is_no_garbage() -> None:
    subprocess.run([sys.executable, "-c", BEGIN], check=True)
