"""What every real server of the tests needs: a place for its files, a free port, a start and an end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

# Long enough for a JVM on two busy cores; whoever starts quicker is found quicker.
START_SECONDS = 60.0
STOP_SECONDS = 10.0
FORBIDDEN = "TESTS_WITHOUT_SERVERS"  # in the environment of `make check`


def may_start(what: str) -> None:
    """Raises AssertionError where no server may be started."""
    assert FORBIDDEN not in os.environ, (
        f"{what} is a real server, and `make check` starts none: use a fixture of tests/servers/shared.py, "
        "or mark the test with pytest.mark.servers"
    )


def unavailable(reason: str) -> NoReturn:
    """Skip the test with `reason`; under CI, where the server must be had, fail it."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"this server must be there under CI: {reason}")
    pytest.skip(reason)


def cache_directory(name: str) -> Path:
    """Where the server `name` (with its version) is kept between runs, outside the source tree."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(root).expanduser() / "grantex-beam" / name
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def install_once(directory: Path) -> Iterator[bool]:
    """Hold a lock on `directory`; yields whether it still has to be filled.

    When the block ends without an exception the directory counts as filled, for ever.
    """
    done = directory / ".complete"
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not done.exists()
        done.touch()


def pip_install(directory: Path, requirements: str, timeout: float = 300.0) -> None:
    """Install pinned and hashed `requirements` (the text of a requirements file) into `directory`, as
    `pip install --target` does. Skips or fails as `unavailable` when it cannot be had."""
    with install_once(directory) as missing:
        if not missing:
            return
        wanted = directory / "requirements.txt"
        wanted.write_text(requirements)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--no-deps", "--require-hashes", "--target", str(directory), "-r", str(wanted)]
        first = next(line for line in requirements.splitlines() if line and not line.startswith("#"))
        fetch(command, f"pip cannot install {first.split()[0]}", timeout)


def own_environment(home: Path, packages: Sequence[str], fault: str, seconds: float) -> None:
    """A virtual environment with `packages` in home/venv, for what has other requirements than ours. Each of
    its two steps may last so many seconds; skips or fails as `unavailable`, with `fault` first."""
    fetch([sys.executable, "-m", "venv", "--clear", str(home / "venv")], fault, seconds)
    pip = [str(home / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    fetch([*pip, *packages], fault, seconds)


def go_program(name: str, package: str, version: str, seconds: float) -> Path:
    """A program of Go's, built once within so many seconds. Skips or fails as `unavailable`."""
    directory = cache_directory(f"{name}-{version}")
    with install_once(directory) as missing:
        if missing and shutil.which("go") is None:
            unavailable(f"{name} is built from source: it needs Go (https://go.dev/doc/install)")
        if missing:
            # Hundreds of megabytes of modules, of no use afterwards; writable, so that they can be removed.
            with tempfile.TemporaryDirectory(dir=directory) as work:
                paths = {"GOBIN": str(directory), "GOPATH": f"{work}/go", "GOCACHE": f"{work}/cache"}
                env = {**os.environ, **paths, "GOFLAGS": "-modcacherw"}
                command = ["go", "install", f"{package}@v{version}"]
                fetch(command, f"{name} cannot be built here", seconds, env=env)
    return directory / name


def fetch(
    command: Sequence[str],
    fault: str,
    seconds: float,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> None:
    """Run what fetches or builds a server; `unavailable`, with `fault` first, when that fails or lasts."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        unavailable(f"{fault} within {seconds:.0f} s")
    if done.returncode:
        unavailable(f"{fault}: {(done.stderr.strip() or done.stdout.strip() or 'no message')[-500:]}")


def free_port() -> int:
    """A port on loopback that nobody listens on now. Somebody else may take it before you do."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Whether somebody accepts connections on this port of loopback."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess:
    """A server that a test started: its own process group, its output in `log`, ended with the test."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        may_start(command[0])
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], what: str, timeout: float = START_SECONDS) -> None:
        """Ask `ready` until it says yes. Raises AssertionError with the end of the log when the process
        ends or the time is over; `ready` may raise OSError for "not yet"."""
        until = time.monotonic() + timeout
        while True:
            with contextlib.suppress(OSError):
                if ready():
                    return
            code = self._process.poll()
            if code is not None:
                raise AssertionError(f"{what} ended with {code} at its start:\n{self.tail()}")
            if time.monotonic() > until:
                raise AssertionError(f"{what} is not up after {timeout:.0f} s:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, size: int = 2000) -> str:
        """The end of what the server said."""
        return self.log.read_bytes()[-size:].decode(errors="replace")

    def kill(self) -> None:
        """`kill -9` for it and all it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not follow within some seconds."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self.kill()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """It keeps its connections and answers nothing (SIGSTOP) until the end of the block."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # the whole group has ended
            os.killpg(self._process.pid, number)

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
