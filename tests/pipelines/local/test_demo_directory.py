"""What kill -9 leaves in the temporary directory goes at the next start; what is in use or foreign stays."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.local.demo import LOCK, temporary_directory

pytestmark = pytest.mark.slow

PREFIX = "grantex-beam-test-"
CHILD = f"""
import time
from pipelines.local.demo import temporary_directory
with temporary_directory({PREFIX!r}) as directory:
    (directory / "state").mkdir()
    (directory / "state" / "journal").write_text("events")
    print(directory, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary directories are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def child(place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process that has a temporary directory, and that."""
    environment = {**os.environ, "TMPDIR": str(place)}
    command = [sys.executable, "-c", CHILD]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_is_ours_while_it_is_used_and_gone_afterwards(place: Path) -> None:
    with temporary_directory(PREFIX) as directory:
        assert directory.parent == place
        assert [path.name for path in directory.iterdir()] == [LOCK]
        (directory / "journal").touch()
    assert list(place.iterdir()) == []


def test_what_kill_9_left_is_removed_by_the_next(child: tuple[subprocess.Popen[str], Path]) -> None:
    process, left = child
    process.kill()
    process.wait()
    assert (left / "state" / "journal").exists()
    with temporary_directory(PREFIX):
        assert not left.exists()


def test_what_another_process_uses_stays(child: tuple[subprocess.Popen[str], Path]) -> None:
    _, used = child
    with temporary_directory(PREFIX):
        pass
    assert (used / "state" / "journal").exists()


def test_what_is_not_known_to_be_ours_stays(place: Path) -> None:
    foreign = place / f"{PREFIX}foreign"  # or of a process that has only just begun
    foreign.mkdir()
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / LOCK).touch()
    (place / f"{PREFIX}link").symlink_to(elsewhere)
    with temporary_directory(PREFIX):
        pass
    assert foreign.is_dir()
    assert (elsewhere / LOCK).exists()
