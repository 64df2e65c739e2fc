"""Starts that are refused: one clear line for each fault, exit 2, and nobody was connected to."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from pipelines.practice.events import generate
from tests.integration.evidence import ids_in_files
from tests.integration.job import ROOT, SECRETS, World
from transforms.feed.journal import Journal

# Runs each command line of its standard input as the job does, and prints exit code and standard error.
MANY = """
import contextlib, io, json, sys
from pipelines.stream import main
for argv in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(argv)
    print(json.dumps([code, said.getvalue().splitlines()]))
"""


def start_each(command_lines: Sequence[Sequence[str]], place: Path) -> list[tuple[int, list[str]]]:
    """Exit code and lines of each; standard output of all must be silent."""
    done = subprocess.run(
        [sys.executable, "-c", MANY],
        input=json.dumps(command_lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PATH": "/usr/bin", "HOME": str(place), **SECRETS},
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [tuple(json.loads(line)) for line in done.stdout.splitlines()]


def test_each_wrong_flag_is_one_line_and_nothing_connects(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        right: dict[str, str | None] = {
            "feed_url": url,
            "feed_api_key": "env:PRACTICE_FEED_KEY",
            "splunk_hec_url": url,
            "splunk_hec_token": "env:PRACTICE_HEC_TOKEN",
            "files_dir": str(tmp_path / "out"),
            "state_dir": str(tmp_path / "state"),
            "status_port": "0",
        }
        wrong: list[tuple[dict[str, str | None], str]] = [
            ({"filse_dir": "x"}, "--filse_dir"),
            ({"feed_url": "htp:/nowhere"}, "--feed_url"),
            ({"splunk_hec_url": "127.0.0.1:8088"}, "--splunk_hec_url"),
            ({"splunk_max_events": "-1"}, "--splunk_max_events"),
            ({"window_size": "soon"}, "--window_size"),
            ({"feed_api_key": None}, "--feed_api_key"),
            ({"splunk_hec_token": "env:NOT_THERE"}, "--splunk_hec_token"),
            ({"feed_api_key": "file:/nowhere/key"}, "--feed_api_key"),
            ({"ca_file": "/nowhere/ca.pem"}, "--ca_file"),
            ({"splunk_hec_url": None, "splunk_hec_token": None, "splunk_index": "main"}, "--splunk_index"),
            ({"files_dir": None, "splunk_hec_url": None, "splunk_hec_token": None}, "--files_dir"),
            ({"demo": "maybe"}, "--demo"),
            ({"forget_destination": "nobody"}, "--forget_destination=nobody"),
        ]
        lines = [as_flags({**right, **change}) for change, _ in wrong]
        everything = [*as_flags(right), "--filse_dir=x", "--splunk_max_events=-1", "--window_size=soon"]
        everything += ["--ca_file=/nowhere/ca.pem", "--feed_types="]
        *each, all_at_once = start_each([*lines, everything], tmp_path)
        for (change, flag), (code, said) in zip(wrong, each, strict=True):
            assert code == 2, (change, said)
            assert len(said) == 1, (change, said)
            assert flag in said[0]
        assert all_at_once[0] == 2
        assert len(all_at_once[1]) >= 4
        for line in (line for _, said in [*each, all_at_once] for line in said):
            assert not any(secret in line for secret in SECRETS.values())
        with pytest.raises(BlockingIOError):
            listener.accept()


def as_flags(flags: dict[str, str | None]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items() if value is not None]


def test_a_state_directory_is_one_process_s_and_one_feed_s(around: World) -> None:
    with around.live_job() as job:
        around.feed.publish_many(islice(generate(), 20))
        assert around.splunk.wait_for(20, timeout=30)
        others = [
            around.flags(status_port=0),
            around.flags(status_port=job.port, state_dir=around.place / "another"),
        ]
        (second, second_said), (taken, taken_said) = start_each(others, around.place)
        job.wait_until_settled("files", "splunk")
        assert job.drain() == 0
    assert (second, len(second_said)) == (2, 1), second_said
    assert f"process {job.process.pid}" in second_said[0]
    assert (taken, len(taken_said)) == (2, 1), taken_said
    assert f"--status_port={job.port}" in taken_said[0]
    assert len(around.feed.streams) == 1


def test_a_removed_destination_holds_its_events_until_it_returns_or_is_forgotten(around: World) -> None:
    journal = Journal(around.state, feed_url=around.feed.url)
    journal.cursor("splunk")
    journal.close()
    no_splunk = {"splunk_hec_url": None, "splunk_hec_token": None, "splunk_max_age": None}
    with around.live_job(**no_splunk) as job:
        around.feed.publish_many(islice(generate(), 30))
        job.wait_until(lambda: len(ids_in_files(around.out)) == 30, "files had them")
        assert "splunk is not among the destinations any more, and the journal keeps 0 events" in job.log
        assert job.metric("grantex_events_pending", "splunk") == 30
        assert job.drain() == 0

    with around.live_job(files_dir=None, files_max_age=None, forget_destination="files") as job:
        around.feed.publish_many(islice(generate(), 20))
        assert around.splunk.wait_for(50, timeout=30)
        assert "files is forgotten" in job.log
        assert "is not among the destinations" not in job.log
        job.wait_until_settled("splunk")
        assert job.drain() == 0
    assert len(set(around.splunk.ids)) == around.splunk.count == 50
    assert len(ids_in_files(around.out)) == 30


@pytest.mark.parametrize("how", ["preflight=strict", "validate_only=true"])
def test_a_preflight_that_fails_starts_nothing_and_exits_with_3(around: World, how: str) -> None:
    around.splunk.rotate("another-token")
    with around.start([*around.flags(status_port=0), f"--{how}"]) as job:
        code = job.process.wait(60)
        said = job.log
    assert code == 3, said
    assert "refused the HEC token" in said
    assert not any(secret in said for secret in SECRETS.values())
    assert len(around.feed.streams) == 0
    assert around.splunk.count == 0
