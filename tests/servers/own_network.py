"""Tests whose servers listen on all interfaces run in a process and a network namespace of their own.

Prism, and Beam's worker pool with it, listens on every interface and runs what it is sent. Mark a test (or
`pytestmark` a module) with `own_network(needs=function)`: `needs` is called outside, where packages can be
had; then the test and its fixtures run where only loopback exists, in a new process, for at most LIMIT
seconds or its argument `limit`. Nothing that it started is left, even if it was interrupted or killed.

Where the machine has process namespaces there is one for all tests of a worker. Its first process has
imported what they need and forks for each (as in forkserver.py, and for the same reason); what is left of a
test is killed before the next.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.servers.forkserver import ONE_THREAD, only_thread, preload, take_over
from tests.servers.process import unavailable

MARK = "own_network"
REPORTS = "GRANTEX_TEST_REPORTS"  # in the environment of the process inside: the file for its reports
# A process namespace: when its first process ends, the test's, the kernel ends all others of it.
ALL_END_WITH_IT = ("--pid", "--fork", "--kill-child", "--mount-proc")
LIMIT = 300.0  # seconds for one test, of which the last few are for pytest's own time-out to speak


def pytest_itemcollected(item: pytest.Item) -> None:
    """The process inside has the time limit; outside, `needs` may build for a while."""
    if _apart(item):
        item.add_marker(pytest.mark.timeout(0), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Runs a marked test apart and reports what was reported there."""
    if not _apart(item):
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    prepared = pytest.CallInfo.from_call(lambda: _prepare(item), when="setup")
    if prepared.excinfo is not None:
        reports = [item.ihook.pytest_runtest_makereport(item=item, call=prepared)]
    else:
        reports = list(_run(item))
    ended = pytest.CallInfo.from_call(lambda: _leave(item, nextitem), when="teardown")
    if ended.excinfo is not None:
        reports.append(item.ihook.pytest_runtest_makereport(item=item, call=ended))
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


class Recorder:
    """The plugin inside: each report becomes a line of JSON."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._config: pytest.Config | None = None

    def pytest_configure(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        assert self._config is not None
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._path.open("a") as lines:
            lines.write(json.dumps(data) + "\n")


def _apart(item: pytest.Item) -> bool:
    return item.get_closest_marker(MARK) is not None and REPORTS not in os.environ


def _limit(item: pytest.Item) -> float:
    marker = item.get_closest_marker(MARK)
    return float(marker.kwargs.get("limit", LIMIT)) if marker else LIMIT


def _leave(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """End the fixtures of directories and modules that the next test does not share: those of the test
    before were kept for this one."""
    item.session._setupstate.teardown_exact(nextitem)


def _prepare(item: pytest.Item) -> None:
    marker = item.get_closest_marker(MARK)
    assert marker is not None
    if not namespace():
        unavailable(
            "it needs a network namespace (Linux, `unshare --net` as root or with user namespaces allowed): "
            "what it starts would listen on every interface of this machine"
        )
    marker.kwargs.get("needs", lambda: None)()


@functools.cache
def namespace() -> tuple[str, ...]:
    """The command that starts another one in a network of its own, whose processes all end with it if this
    machine can do that; empty when it cannot."""
    kinds = (("--net", *ALL_END_WITH_IT), ("--map-root-user", "--net", *ALL_END_WITH_IT))
    for kind in (*kinds, ("--net",), ("--map-root-user", "--net")):
        command = ("unshare", *kind)
        if (
            shutil.which("unshare")
            and not subprocess.run([*command, sys.executable, "-c", ""], capture_output=True).returncode
        ):
            return command
    return ()


def _run(item: pytest.Item) -> Iterator[pytest.TestReport]:
    with tempfile.TemporaryDirectory() as directory:
        path, said = Path(directory, "reports"), Path(directory, "said")
        limit = _limit(item)
        arguments = [item.nodeid, f"--timeout={limit - 20:.0f}"]
        run = _inside_one if set(ALL_END_WITH_IT) <= set(namespace()) else _in_a_new_one
        ended = run(item.config.rootpath, arguments, {**os.environ, REPORTS: str(path)}, said, limit)
        lines = path.read_text().splitlines() if path.exists() else []
        output = said.read_text(errors="replace") if said.exists() else ""
    finished = False
    for line in lines:
        data = json.loads(line)
        if data["outcome"] == "skipped" and isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])  # JSON has no tuples, and pytest asks for one
        finished = finished or data["when"] == "teardown"
        yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if not finished:
        text = f"the process of this test ended with {ended}:\n{output}"
        yield pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")


def _in_a_new_one(
    root: Path, arguments: list[str], environment: dict[str, str], output: Path, limit: float
) -> int | None:
    """pytest with these arguments in a namespace of its own; its exit code, None after `limit` seconds."""
    with output.open("wb") as file:
        process = subprocess.Popen(
            [*namespace(), sys.executable, "-m", __name__, *arguments],
            cwd=root,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _kill(process)


_first: subprocess.Popen[bytes] | None = None  # of the namespace that this worker's tests share


def _inside_one(
    root: Path, arguments: list[str], environment: dict[str, str], output: Path, limit: float
) -> int | None:
    """The same in the namespace that the tests of this worker share; a new one after `limit` seconds."""
    global _first
    if _first is None:
        _first = subprocess.Popen(
            [*namespace(), sys.executable, "-m", __name__],
            cwd=root,
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
    assert _first.stdin is not None
    assert _first.stdout is not None
    answer = b""
    try:
        _first.stdin.write(json.dumps([arguments, environment, str(output)]).encode() + b"\n")
        _first.stdin.flush()
        ready, _, _ = select.select([_first.stdout], [], [], limit)
        answer = _first.stdout.readline() if ready else b""
        return int(answer) if answer else None
    finally:
        if not answer:
            _kill(_first)
            _first = None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """And with it all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def bring_loopback_up() -> None:
    """A new network namespace has a loopback interface that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        get, set_, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP (netdevice(7))
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(any_socket, get, request))
        fcntl.ioctl(any_socket, set_, struct.pack("16sH14x", b"lo", flags | up))


def test(arguments: list[str]) -> int:
    """Run pytest here; returns its exit code."""
    # Neither plugin has anything to do there; each imports for a third of a second.
    every = ["-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:anyio", *arguments]
    code = pytest.main(every, plugins=[Recorder(os.environ[REPORTS])])
    sys.stdout.flush()
    return int(code)


def serve() -> None:
    """Fork for each line of standard input, and kill what is left of it before the next."""
    assert os.getpid() == 1, "only the first process of a namespace may kill all others"
    requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
    preload("pytest", "tests.integration.job")
    for line in requests:
        only_thread()
        child = os.fork()
        if not child:
            requests.close()
            os.close(answers)
            _become(*json.loads(line))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # all but the first of a namespace
        with contextlib.suppress(ChildProcessError):
            while True:
                os.waitpid(-1, 0)
        os.write(answers, f"{code}\n".encode())
    os._exit(0)


def _become(arguments: list[str], environment: dict[str, str], output: str) -> NoReturn:
    os.setsid()
    take_over(environment, Path(output))
    # Not by sys.exit: a gRPC channel whose server has died may wait for ever to be closed (grpcio 1.8x).
    os._exit(test(arguments))


if __name__ == "__main__":
    bring_loopback_up()
    if len(sys.argv) == 1:
        serve()
    os._exit(test(sys.argv[1:]))
