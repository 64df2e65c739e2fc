"""Child processes of the benchmark: servers that say their ports, sides whose CPU and memory are read."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TICKS = os.sysconf("SC_CLK_TCK")
ENVIRONMENT = {"BENCH_FEED_KEY": "benchmark-key", "BENCH_HEC_TOKEN": "benchmark-token"}


@contextlib.contextmanager
def server(module: str, *arguments: str) -> Iterator[list[int]]:
    """Run `tests.benchmarks.<module>` and give the ports that it prints."""
    command = [sys.executable, "-m", f"tests.benchmarks.{module}", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield [int(port) for port in process.stdout.readline().split()]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def stats(port: int) -> dict[str, Any]:
    """What a server of the benchmark has counted."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/stats")
        figures: dict[str, Any] = json.loads(connection.getresponse().read())
        return figures
    finally:
        connection.close()


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used so far, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_of(pid: int, name: str = "VmRSS") -> float:
    """MB resident: `VmRSS` now, `VmHWM` at most so far. Raises OSError when there is no such process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that live."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # the thread has ended
            found += map(int, thread.read_text().split())
    return found


@dataclass
class Ended:
    """What the kernel says of a process that has ended."""

    code: int  # negative: the signal that ended it
    cpu: float  # seconds, user and system, the start and all imports included


class Side:
    """One side as a whole child process; its output is kept for when it fails."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self.command = command
        self.output = tempfile.TemporaryFile()  # noqa: SIM115
        self.started = time.monotonic()
        given = {**os.environ, **ENVIRONMENT, **(environment or {})}
        self.process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=self.output, stderr=self.output)

    @property
    def running(self) -> bool:
        """Whether it has not ended yet; does not reap it, so that its figures can still be read."""
        result = os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return result is None

    def cpu(self) -> float:
        """Seconds of CPU so far, user and system, all threads."""
        return cpu_of(self.process.pid)

    def memory(self, name: str) -> float:
        """MB resident: `VmRSS` now, `VmHWM` at most so far."""
        try:
            return memory_of(self.process.pid, name)
        except OSError as error:
            raise ProcessLookupError(self.failure("ended")) from error

    def stop(self, timeout: float = 40.0) -> Ended:
        """SIGTERM, and what it had used when it was gone; killed after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        self.process.send_signal(signal.SIGTERM)
        while self.running:
            if time.monotonic() > deadline:
                self.process.kill()
            time.sleep(0.02)
        _, status, usage = os.wait4(self.process.pid, 0)
        self.process.returncode = os.waitstatus_to_exitcode(status)
        return Ended(self.process.returncode, usage.ru_utime + usage.ru_stime)

    def failure(self, what: str) -> str:
        """What went wrong, with the end of the output."""
        self.output.seek(0)
        tail = self.output.read().decode(errors="replace")[-3000:]
        return f"{' '.join(self.command)}\n{what}. The end of its output:\n{tail}"


@contextlib.contextmanager
def running(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Iterator[Side]:
    """A side that is gone at the end, whatever happened."""
    side = Side(command, environment)
    try:
        yield side
    finally:
        if side.process.returncode is None:
            side.process.kill()
            side.process.wait()
        side.output.close()
