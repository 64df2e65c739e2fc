"""Tests whose servers listen on all interfaces run in a process and a network namespace of their own.

Prism, and Beam's worker pool with it, listens on every interface and runs what it is sent. Mark a test (or
`pytestmark` a module) with `own_network(needs=function)`: `needs` is called outside, where packages can be
had; then the test and its fixtures run where only loopback exists, in a new process, for at most LIMIT
seconds or its argument `limit`. Nothing that it started is left, even if it was interrupted or killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        path = Path(directory, "reports")
        command = [*namespace(), sys.executable, "-m", "tests.servers.own_network", item.nodeid]
        limit = _limit(item)
        command.append(f"--timeout={limit - 20:.0f}")
        process = subprocess.Popen(
            command,
            cwd=item.config.rootpath,
            env={**os.environ, REPORTS: str(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):  # what it started, if it did not end that
                os.killpg(process.pid, signal.SIGKILL)
        lines = path.read_text().splitlines() if path.exists() else []
    finished = False
    for line in lines:
        data = json.loads(line)
        if data["outcome"] == "skipped" and isinstance(data["longrepr"], list):
            data["longrepr"] = tuple(data["longrepr"])  # JSON has no tuples, and pytest asks for one
        finished = finished or data["when"] == "teardown"
        yield item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
    if not finished:
        text = f"the process of this test ended with {process.returncode}:\n{output.decode(errors='replace')}"
        yield pytest.TestReport(item.nodeid, item.location, {}, "failed", text, "call")


def bring_loopback_up() -> None:
    """A new network namespace has a loopback interface that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        get, set_, up = 0x8913, 0x8914, 0x1  # SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP (netdevice(7))
        request = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack("16xH14x", fcntl.ioctl(any_socket, get, request))
        fcntl.ioctl(any_socket, set_, struct.pack("16sH14x", b"lo", flags | up))


if __name__ == "__main__":
    bring_loopback_up()
    arguments = ["-q", "-p", "no:cacheprovider", *sys.argv[1:]]
    code = pytest.main(arguments, plugins=[Recorder(os.environ[REPORTS])])
    sys.stdout.flush()
    # Not by sys.exit: a gRPC channel whose server has died may wait for ever to be closed (grpcio 1.8x).
    os._exit(code)
