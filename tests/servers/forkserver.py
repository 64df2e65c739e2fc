"""Starts of a program that cost no imports: a process that has imported the job forks for each start.

Imports are 3 of the 3.5 s of CPU that a short life of the job costs. This is for tests that look at what the
job does once it runs. Those about starting, imports, packages or /proc/PID/environ, and the programs that
prove something (`make kill-test` and the like), have it executed (`spawn`).

A forked program has a pid, arguments, an environment, a directory, its output, Python's usual signals and an
exit code of its own, as an executed one has. It shares with the others of this worker the seed of hash() and
what `ps` and /proc/PID/environ show of it. `test_forkserver.py` compares the two.

The server has one thread and opens no connection, so that nothing is held while it forks; else it ends.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

ROOT = Path(__file__).parents[2]
# Imported for all; it is taken out again and executed as __main__ by each that is asked for it.
JOB = "pipelines.stream"
# Else NumPy's starts a thread for each core at import.
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class Process(Protocol):
    """What both kinds of start give: of subprocess.Popen what a test of the job uses."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, sig: int) -> None: ...
    def kill(self) -> None: ...


def spawn(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    directory: Path = ROOT,
) -> Process:
    """`python -m module` in `directory`, with nothing to read; what it says is added to the file `output`."""
    with output.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=directory,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def fork(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    output: Path,
    directory: Path = ROOT,
) -> Process:
    """The same by a fork of what is imported already; executed, where the environment has other settings of
    Python's own than this process."""
    if _of_python(environment) != _of_python(os.environ):
        return spawn(module, arguments, environment, output, directory)
    output.open("ab").close()  # there from the start, as when it is executed
    return Forked(_server(), [module, *arguments], dict(environment), output, directory)


def _of_python(environment: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in environment.items() if key.startswith("PYTHON")}


class Forked:
    """A child of the fork server's. As a child of ours it stays, once it has ended, until somebody asks for
    its exit code: until then its pid is nobody else's."""

    def __init__(
        self, server: ForkServer, argv: list[str], environment: dict[str, str], output: Path, directory: Path
    ) -> None:
        self._server = server
        self.returncode: int | None = None
        self.pid: int = server.ask("start", argv, environment, str(output.absolute()), str(directory))

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.ask("poll", self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        until = None if timeout is None else time.monotonic() + timeout
        pause = 0.001
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                assert timeout is not None
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
        return code

    def send_signal(self, sig: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """Of this process, with which it ends."""

    def __init__(self) -> None:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GRANTEX_")}
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            env={**environment, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, *request: Any) -> Any:
        """Raises AssertionError when it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, f"the fork server ended with {self._process.wait()}"
        return json.loads(answer)


@functools.cache
def _server() -> ForkServer:
    return ForkServer()


def serve() -> None:
    """Answer until the end of standard input; in a child, run the program instead and return with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for those that it started
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    preload()
    for line in requests:
        kind, *given = json.loads(line)
        answer: int | None
        if kind == "start":
            only_thread()
            answer = os.fork()
            if not answer:
                requests.close()
                os.close(answers)
                _become(*given)
        else:
            answer = _ended(*given)
        os.write(answers, json.dumps(answer).encode() + b"\n")
    os._exit(0)


def preload(*more: str) -> None:
    """Import what the job does, and more. The job's own module is left out, as it is executed by who starts
    it."""
    gc.disable()
    for name in (JOB, *more):
        importlib.import_module(name)
    del sys.modules[JOB]
    gc.freeze()  # so that the pages stay shared
    gc.enable()


def only_thread() -> None:
    """Raises AssertionError when there are others, of Python's or of a library's: a fork could leave locked
    or half done what they are at."""
    with contextlib.suppress(FileNotFoundError):  # where there is no /proc
        threads = os.listdir("/proc/self/task")
        assert len(threads) == 1, f"the fork server has {len(threads)} threads"


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def take_over(environment: Mapping[str, str], output: Path) -> None:
    """What the kernel and Python do for a process that is executed: this environment, and this file for all
    that it says."""
    nothing, file = os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for source, target in ((nothing, 0), (file, 1), (file, 2)):
        os.dup2(source, target)
    os.close(nothing)
    os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    tempfile.tempdir = None


def _become(argv: list[str], environment: dict[str, str], output: str, directory: str) -> NoReturn:
    take_over(environment, Path(output))
    os.chdir(directory)
    module, *arguments = argv
    sys.path[0], sys.argv = directory, ["", *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve()
