"""`make run`: what is given as ARGS arrives at the job as it was written; `make check` and `make test`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Runs what it is given, but for the job itself, of which it prints the arguments.
PYTHON = """#!/bin/sh
if [ "$1" != -m ]; then exec {python} "$@"; fi
shift 2
for each; do printf '%s\\n' "$each"; done
"""


@pytest.fixture
def run(tmp_path: Path) -> list[str]:
    """The command that runs the job, up to ARGS."""
    if shutil.which("make") is None:
        pytest.fail("make is not installed")
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    ready = tmp_path / "ready"
    ready.touch()
    return ["make", "-s", "run", f"VENV={tmp_path}", f"RUN_READY={ready}"]


def done(run: list[str], *more: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """With nothing of the `make test ARGS=...` that runs these tests."""
    ours = ("GRANTEX_", "MAKE", "ARGS", "RUN_ARGS", "MFLAGS")
    clean = {name: text for name, text in os.environ.items() if not name.startswith(ours)}
    return subprocess.run(
        [*run, *more], cwd=ROOT, env={**clean, **environ}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        ("--feed_api_key=$KEY", ["--feed_api_key=s3 cret&"]),
        ("--feed_api_key=${KEY} --x=1", ["--feed_api_key=s3 cret&", "--x=1"]),
        ("--feed_api_key=$$KEY", ["--feed_api_key=s3 cret&"]),
        (
            "--custom_destination=a:B?name=c&url=https://d/?e;f",
            ["--custom_destination=a:B?name=c&url=https://d/?e;f"],
        ),
        (
            "--feed_types=grant.created, grant.revoked --x 1",
            ["--feed_types=grant.created,grant.revoked", "--x", "1"],
        ),
        ("--splunk_source='two words' --y=\"a  b\"", ["--splunk_source=two words", "--y=a  b"]),
        ("--kafka_config=sasl.password=pa$ss", ["--kafka_config=sasl.password=pa$ss"]),
    ],
)
def test_args_arrive_as_they_are_written(run: list[str], given: str, arrives: list[str]) -> None:
    job = done(run, f"ARGS={given}", KEY="s3 cret&")
    assert (job.returncode, job.stderr) == (0, "")
    assert job.stdout.splitlines() == arrives
    by_environment = done(run, ARGS=given, KEY="s3 cret&")
    assert by_environment.stdout.splitlines() == arrives


def test_a_variable_that_is_not_set_is_said(run: list[str]) -> None:
    job = done(run, "ARGS=--feed_api_key=$NOWHERE_TO_BE_FOUND")
    assert "ARGS: $NOWHERE_TO_BE_FOUND is not set in the environment" in job.stderr
    assert job.returncode == 2
    assert job.stdout == ""


def test_a_quote_that_is_not_closed_is_said(run: list[str]) -> None:
    job = done(run, "ARGS=--splunk_source='two words")
    assert "ARGS: No closing quotation" in job.stderr
    assert job.stdout == ""


def test_nothing_given_is_the_demo(run: list[str]) -> None:
    assert done(run).stdout.splitlines() == ["--demo=true"]
    assert done(run, GRANTEX_FILES_DIR="./out").stdout == ""


@pytest.mark.parametrize("target", ["check", "test"])
@pytest.mark.parametrize("fails", ["", "mypy", "pytest"])
def test_all_steps_are_done_and_any_that_fails_is_named(tmp_path: Path, target: str, fails: str) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nshift; echo "done: $*"; [ "$1" != "{fails}" ]\n')
    python.chmod(0o755)
    for name in ("run", "test"):
        (tmp_path / name).touch()
    ready = [f"{name.upper()}_READY={tmp_path / name}" for name in ("run", "test")]
    command = ["make", "-s", target, f"VENV={tmp_path}", *ready, "WORKERS=3"]
    made = done(command, "ARGS=-k this")
    steps = [line.split()[1] for line in made.stdout.splitlines() if line.startswith("done: ")]
    assert steps == ["ruff", "ruff", "pytest", "mypy"]
    (tests,) = (line for line in made.stdout.splitlines() if line.startswith("done: pytest"))
    assert "--numprocesses=3" in tests
    assert tests.endswith("-k this")
    assert bool(made.returncode) is bool(fails)
    assert ("FAILED:" in made.stderr and f"[{fails}" in made.stderr) is bool(fails)
