"""A real Flink: a session cluster of one task manager, Beam's job server for it, and a Python worker pool.

The newest runner whose jars all resolve is Beam 2.62's for Flink 1.19; it runs jobs of a newer SDK. All of it
listens on every interface and the pool runs what it is sent: mark tests `own_network(needs=flink.install)`.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.servers.flink_install import FLINK, PROGRAMS, install
from tests.servers.process import ServerProcess, free_port, listens

__all__ = ["PROGRAMS", "Flink", "cluster", "install", "wait_for"]

# What Java 17 must open for Flink (its own config.yaml, `env.java.opts.all`).
OPENS = [
    *(
        f"--add-exports={name}=ALL-UNNAMED"
        for name in ("java.base/sun.net.util", "java.rmi/sun.rmi.registry")
    ),
    *(
        f"--add-opens=java.base/{name}=ALL-UNNAMED"
        for name in (
            *("java.lang", "java.net", "java.io", "java.nio", "sun.nio.ch", "java.lang.reflect", "java.text"),
            *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
            "java.util.concurrent.locks",
        )
    ),
]
SESSION = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
ANSWER_SECONDS = 60.0


class Flink:
    """A cluster in `directory`: `kill_task_manager`, `start_task_manager`, and its REST service."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._home = install()
        self.savepoints = directory / "savepoints"
        self._conf = directory / "conf"
        self._conf.mkdir(parents=True)
        self._ports = {name: free_port() for name in ("rpc", "rest", "job", "artifact", "expansion", "pool")}
        (self._conf / "flink-conf.yaml").write_text(self._settings())
        (self._conf / "log4j.properties").write_text(LOG4J)
        self.rest = httpx.Client(base_url=f"http://127.0.0.1:{self._ports['rest']}", timeout=30.0)
        self._stack = contextlib.ExitStack()
        self._task_manager: ServerProcess | None = None

    def __enter__(self) -> Flink:
        try:
            self._session = self._java("session", SESSION, [f"--configDir={self._conf}"], "-Xmx512m")
            self._session.wait_until(lambda: self._overview() is not None, f"Flink {FLINK}")
            self.start_task_manager()
            self._start_job_server()
            self._start_pool()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._task_manager is not None:
            self._task_manager.kill()
        self._stack.close()

    @property
    def options(self) -> list[str]:
        """Beam's options for a job on it."""
        return [
            "--runner=PortableRunner",
            f"--job_endpoint=127.0.0.1:{self._ports['job']}",
            f"--artifact_endpoint=127.0.0.1:{self._ports['artifact']}",
            "--environment_type=EXTERNAL",
            f"--environment_config=127.0.0.1:{self._ports['pool']}",
            "--parallelism=1",
            "--checkpointing_interval=3000",
            "--max_bundle_time_mills=100",
        ]

    def pids(self) -> list[int]:
        """Its processes, without the workers and their pool."""
        assert self._task_manager is not None
        return [self._session.pid, self._task_manager.pid, self._job_server.pid]

    def start_task_manager(self) -> None:
        """Start it, again after `kill_task_manager`; returns when Flink knows it."""
        jvm, dynamic = self._task_manager_parameters()
        arguments = ["--configDir", str(self._conf), *dynamic]
        self._task_manager = self._java("taskmanager", TASK_MANAGER, arguments, *jvm, kept=False)
        self._task_manager.wait_until(lambda: self._slots() > 0, "Flink's task manager")

    def kill_task_manager(self) -> None:
        """`kill -9`."""
        assert self._task_manager is not None
        self._task_manager.kill()

    def ask(self, path: str) -> Any:
        """What its REST service answers to a GET."""
        answer = self.rest.get(path)
        answer.raise_for_status()
        return answer.json()

    def jobs(self) -> dict[str, str]:
        """Job ids and their states."""
        return {job["id"]: job["status"] for job in self.ask("/jobs")["jobs"]}

    def checkpoints(self, job: str) -> int:
        """How many checkpoints of the job have completed."""
        return int(self.ask(f"/jobs/{job}/checkpoints")["counts"]["completed"])

    def counted(self, job: str, counter: str) -> int:
        """The sum of a Beam counter over the job; 0 as long as Flink has not fetched it from its workers."""
        total = 0
        for vertex in self.ask(f"/jobs/{job}")["vertices"]:
            path = f"/jobs/{job}/vertices/{vertex['id']}/subtasks/metrics"
            names = [metric["id"] for metric in self.ask(path) if metric["id"].endswith(counter)]
            total += sum(int(metric["sum"]) for name in names for metric in self.ask(f"{path}?get={name}"))
        return total

    def cancel(self, job: str) -> None:
        """Cancel over REST: Beam's own `cancel` says so while the job goes on."""
        self.rest.patch(f"/jobs/{job}", params={"mode": "cancel"}).raise_for_status()
        wait_for(lambda: self.jobs()[job] in ("CANCELED", "FINISHED", "FAILED"), "the job does not end")

    def stop_with_savepoint(self, job: str) -> str:
        """Where the savepoint is."""
        body = {"targetDirectory": self.savepoints.as_uri(), "drain": False}
        trigger = self.rest.post(f"/jobs/{job}/stop", json=body).raise_for_status().json()["request-id"]
        found: dict[str, Any] = {}

        def done() -> bool:
            found.update(self.ask(f"/jobs/{job}/savepoints/{trigger}"))
            return bool(found["status"]["id"] == "COMPLETED")

        wait_for(done, "no savepoint")
        assert "location" in found["operation"], found
        return str(found["operation"]["location"])

    def tail(self) -> str:
        """The end of every log, for a failure's report."""
        logs = sorted(self.directory.glob("*.log"))
        return "\n".join(f"== {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in logs)

    def _start_job_server(self) -> None:
        arguments = [
            f"--flink-master=127.0.0.1:{self._ports['rest']}",
            *("--job-host=127.0.0.1", f"--job-port={self._ports['job']}"),
            f"--artifact-port={self._ports['artifact']}",
            f"--expansion-port={self._ports['expansion']}",
            f"--artifacts-dir={self.directory / 'artifacts'}",
        ]
        self._job_server = self._java("jobserver", JOB_SERVER, arguments, "-Xmx512m", jars="beam")
        self._job_server.wait_until(lambda: listens(self._ports["job"]), "Beam's job server")

    def _start_pool(self) -> None:
        pool = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main"]
        # It starts `python` from PATH: the one that runs this must come first.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        command = [*pool, f"--service_port={self._ports['pool']}"]
        self.pool = ServerProcess(command, self.directory / "pool.log", env={"PATH": path})
        self._stack.callback(self.pool.kill)
        self.pool.wait_until(lambda: listens(self._ports["pool"]), "the worker pool")

    def _java(
        self,
        name: str,
        main: str,
        arguments: list[str],
        *jvm: str,
        jars: str = "flink/lib",
        kept: bool = True,
    ) -> ServerProcess:
        log4j = f"-Dlog4j.configurationFile={self._conf / 'log4j.properties'}"
        command = ["java", *jvm, *OPENS, log4j, "-cp", f"{self._home / jars}/*", main, *arguments]
        process = ServerProcess(command, self.directory / f"{name}.log", cwd=self.directory)
        if kept:
            self._stack.callback(process.kill)
        return process

    def _task_manager_parameters(self) -> tuple[list[str], list[str]]:
        """JVM parameters and dynamic properties, as Flink's own start script works them out."""
        classes = f"{self._home}/flink/bin/bash-java-utils.jar:{self._home}/flink/lib/*"
        tool = "org.apache.flink.runtime.util.bash.BashJavaUtils"
        command = ["java", "-cp", classes, tool, "GET_TM_RESOURCE_PARAMS", "--configDir", str(self._conf)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        marked = "BASH_JAVA_UTILS_EXEC_RESULT:"
        jvm, dynamic = (
            line.partition(marked)[2].split() for line in done.stdout.splitlines() if marked in line
        )
        return jvm, dynamic

    def _overview(self) -> Any:
        with contextlib.suppress(httpx.HTTPError):
            return self.ask("/overview")
        return None

    def _slots(self) -> int:
        overview = self._overview()
        return int(overview["slots-available"]) if overview else 0

    def _settings(self) -> str:
        checkpoints = self.directory / "checkpoints"
        settings = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": self._ports["rpc"],
            "jobmanager.bind-host": "127.0.0.1",
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": self._ports["rest"],
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "jobmanager.memory.process.size": "1024m",
            "taskmanager.memory.process.size": "1600m",
            "taskmanager.numberOfTaskSlots": 4,
            "state.checkpoints.dir": checkpoints.as_uri(),
            "state.checkpoint-storage": "filesystem",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 1000,
            "restart-strategy.fixed-delay.delay": "1 s",
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 8000,
            "io.tmp.dirs": self.directory / "tmp",
        }
        return "".join(f"{name}: {value}\n" for name, value in settings.items())


LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.name = out
appender.out.type = CONSOLE
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %-5p %c{1} - %m%n
"""


def wait_for(condition: Callable[[], bool], what: str, seconds: float = ANSWER_SECONDS) -> None:
    """Ask until it is so. Raises AssertionError with `what` is the matter."""
    give_up = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < give_up, f"{what} within {seconds:.0f} s"
        time.sleep(0.1)


@contextlib.contextmanager
def cluster(directory: Path) -> Iterator[Flink]:
    """A running cluster; its logs are part of whatever fails in the block."""
    with Flink(directory) as flink:
        try:
            yield flink
        except BaseException as error:
            error.args = (*error.args, flink.tail())
            raise
