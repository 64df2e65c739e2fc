"""A state file is what it was or what it is to be, never a part of it, and its owner's alone."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from transforms.durable import replace_file

OLD, NEW = b"as it was", b"as it is to be " * 1000


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "state"
    replace_file(path, OLD)
    return path


def test_it_is_replaced_and_nothing_is_left_beside_it(state: Path) -> None:
    replace_file(state, NEW)
    assert state.read_bytes() == NEW
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert [*state.parent.iterdir()] == [state]


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_on_a_full_disk_it_stays_as_it_was(state: Path, monkeypatch: pytest.MonkeyPatch, fails: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, fails, full)
        with pytest.raises(OSError, match="No space left"):
            replace_file(state, NEW)
    assert state.read_bytes() == OLD
    assert [*state.parent.iterdir()] == [state]


@pytest.mark.slow
def test_killed_in_the_middle_it_stays_as_it_was_and_the_next_one_replaces_it(state: Path) -> None:
    program = (
        "import os, pathlib, signal, sys; from transforms.durable import replace_file\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"replace_file(pathlib.Path(sys.argv[1]), {NEW!r})"
    )
    killed = subprocess.run([sys.executable, "-c", program, state], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert state.read_bytes() == OLD
    replace_file(state, NEW)
    assert state.read_bytes() == NEW
    assert [*state.parent.iterdir()] == [state]
