"""What is forked is, for a test, what is executed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines.practice.events import generate
from tests.integration.job import world
from tests.servers.forkserver import Forked, Process, fork, spawn

pytestmark = pytest.mark.slow

# What a program finds when it begins, as JSON on standard output.
FINDS = """
import json, logging, os, resource, signal, sys, tempfile, threading, time
print("to standard error", file=sys.stderr, flush=True)
names = [signal.SIGINT, signal.SIGTERM, signal.SIGPIPE, signal.SIGCHLD, signal.SIGHUP]
mine = os.stat(0), os.stat(os.devnull)
print(json.dumps({
    "name": __name__, "package": __package__, "file": __file__, "main": sys.modules["__main__"].__file__,
    "argv": sys.argv, "path": sys.path, "flags": str(sys.flags), "executable": sys.executable,
    "environment": dict(os.environ), "directory": os.getcwd(), "temporary": tempfile.gettempdir(),
    "zone": time.tzname, "group": os.getpgrp(), "session": os.getsid(0), "umask": os.umask(0o22),
    "signals": [str(signal.getsignal(name)) for name in names], "blocked": len(signal.pthread_sigmask(0, [])),
    "threads": [thread.name for thread in threading.enumerate()], "tasks": len(os.listdir("/proc/self/task")),
    "descriptors": sorted(os.listdir("/proc/self/fd"))[:-1], "silent": os.path.samestat(*mine),
    "encodings": [sys.stdin.encoding, sys.stdout.encoding, sys.stdout.line_buffering, sys.stderr.errors],
    "handlers": str(logging.getLogger().handlers), "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
}))
"""
OWN = """
import json, os, random, uuid
print(json.dumps([os.getpid(), random.random(), str(uuid.uuid4())]))
"""
Start = Callable[..., Process]


def said(start: Start, place: Path, program: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code of a program, and all it said."""
    (place / "program.py").write_text(program)
    output = place / "output"
    output.write_text("")
    process = start("program", arguments, {**os.environ, **environment}, output, place)
    return process.wait(60), output.read_text()


def test_a_program_finds_the_same(tmp_path: Path) -> None:
    asked = ("a b", "--c=ü"), {"TMPDIR": str(tmp_path), "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8"}
    forked, executed = (said(start, tmp_path, FINDS, *asked[0], **asked[1]) for start in (fork, spawn))
    assert forked[0] == executed[0] == 0

    def found(text: str) -> Mapping[str, Any]:
        head, tail = text.split("\n", 1)
        assert head == "to standard error"
        values: dict[str, Any] = json.loads(tail)
        return values

    assert found(forked[1]) == found(executed[1])
    assert found(forked[1])["argv"][1:] == ["a b", "--c=ü"]


def test_no_two_have_anything_in_common(tmp_path: Path) -> None:
    starts = [json.loads(said(fork, tmp_path, OWN)[1]) for _ in range(3)]
    assert len({str(value) for start in starts for value in start}) == 9


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("print('said')", 0),
        ("import sys; print('said'); sys.exit(3)", 3),
        ("import sys; print('said'); sys.exit('words')", 1),
        ("print('said'); raise ValueError('words')", 1),
        ("import os; os.write(1, b'said'); os._exit(4)", 4),
        ("import os, signal; print('said', flush=True); os.kill(os.getpid(), signal.SIGKILL)", -9),
        ("import os, signal, time; print('said'); os.kill(os.getpid(), signal.SIGINT); time.sleep(9)", -2),
        ("import os, time; print('said', flush=True); os.kill(os.getpid(), 15); time.sleep(9)", -15),
        ("import atexit; atexit.register(print, 'said')", 0),
        ("import threading as t; t.Timer(0.05, print, ['said']).start()", 0),
        ("import threading as t; t.Timer(9, print, ['late']).setDaemon(True); print('said')", 0),
    ],
)
def test_it_ends_alike(tmp_path: Path, program: str, code: int) -> None:
    forked, executed = (said(start, tmp_path, program) for start in (fork, spawn))
    assert forked[0] == executed[0] == code
    assert "said" in forked[1]
    assert forked[1].splitlines()[-1] == executed[1].splitlines()[-1]


def test_a_process_can_be_asked_stopped_and_killed(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text("import time; time.sleep(60)")
    process = fork("waits", (), os.environ, tmp_path / "output", tmp_path)
    assert (tmp_path / "output").exists()
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGSTOP)
    state = Path(f"/proc/{process.pid}/stat")
    until = time.monotonic() + 10
    while state.read_text().rsplit(") ", 1)[1][0] != "T":
        assert time.monotonic() < until
    process.kill()
    while state.read_text().rsplit(") ", 1)[1][0] != "Z":  # it is there until somebody has asked
        assert time.monotonic() < until
    assert process.wait(10) == process.returncode == -signal.SIGKILL
    assert not state.exists()
    process.kill()  # nobody else's process


def test_other_settings_of_python_s_own_make_it_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "tells.py").write_text("import sys; print(sys.flags.utf8_mode)")
    output = tmp_path / "output"
    process = fork("tells", (), {**os.environ, "PYTHONUTF8": "1"}, output, tmp_path)
    assert not isinstance(process, Forked)
    assert process.wait(60) == 0
    assert output.read_text() == "1\n"


@pytest.mark.servers
def test_the_job_says_and_does_the_same(tmp_path: Path) -> None:
    """Its log word by word, but for figures; its metrics; what it has delivered and kept."""
    seen = []
    for forks in (True, False):
        place = tmp_path / str(forks)
        place.mkdir()
        with world(place, forks=forks) as around, around.live_job() as job:
            assert isinstance(job.process, Forked) is forks
            around.feed.publish_many([*islice(generate(), 30), b"no JSON"])
            assert around.splunk.wait_for(30, timeout=30)
            job.wait_until_settled("splunk", "files")
            metrics = {name for name in job.metrics() if not name[0].startswith("python_")}
            assert job.drain() == 0
            log = [json.loads(line) for line in job.log.splitlines() if line.startswith("{")]
            words = {(one["logger"], plain(one["message"], place)) for one in log if one["level"] == "INFO"}
            # What a library says at import is a line of no logger of ours.
            others = {plain(line, place) for line in job.log.splitlines() if not line.startswith("{")}
            files = {plain(str(path), place) for path in place.rglob("*")}
            seen.append((words, others, metrics, files, len(set(around.splunk.ids))))
    assert seen[0] == seen[1]


def plain(text: str, place: Path) -> str:
    """Without what is another in each run."""
    return re.sub(r"[0-9A-Za-z]*\d[0-9A-Za-z_.-]*", "#", text.replace(str(place), "PLACE"))
