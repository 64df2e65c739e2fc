"""A run as one job on a cluster: submitted, and watched for as long as this process is a part of it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions

from pipelines import exit_codes
from pipelines.cluster import books, flink
from pipelines.cluster.options import pipeline_options
from pipelines.destinations import destinations
from pipelines.groups.run import DATAFLOW
from pipelines.settings import BadParameters
from transforms.feed.worker.sessions import drain
from transforms.write.contract import name_of

if TYPE_CHECKING:
    from pipelines.settings import Settings

log = logging.getLogger("grantex.run")

# Flink's own words, as nothing else is known to have a cluster of that kind. Beam's runner for it never tells
# a source to drain: `flink stop --drain` waits for the end of a feed that has none.
HOW_TO_STOP = (
    "to stop it on Flink and keep what it holds: flink stop --savepointPath=DIRECTORY JOB_ID (flink list "
    "shows the id; never with --drain, which does not end); --savepoint_path=SAVEPOINT goes on from there, "
    "and the time between is a gap on record; to end it for good: flink cancel JOB_ID"
)
# What is said when the job does not end by itself within --drain_timeout.
CANCELLED = "the job is cancelled, and what it had received and not delivered is lost"
# A job with checkpoints never does (see flink.py), and its job server answers CANCELLED while it goes on.
NO_END_ON_FLINK = (
    "the workers end with this process, and what they had received and not delivered is lost; a Flink that "
    "runs elsewhere keeps the job, as it does any with checkpoints: flink cancel JOB_ID (flink list shows it)"
)
Graph = Callable[[beam.Pipeline], None]


def run(settings: Settings, graph: Graph, stop: threading.Event) -> int:
    """Build and submit the job; returns the exit code.

    On Dataflow that is all: the job goes on without this process, and in a template there is none yet.
    Where the workers are inside this process (Prism) the job lives as long as it, and `stop` drains it.
    On another cluster (Flink) this process only watches: after `stop` the job goes on.

    Raises BadParameters.
    """
    options = pipeline_options(settings, os.environ)
    pipeline = _pipeline(options)
    graph(pipeline)
    result = pipeline.run()
    if settings.runner == DATAFLOW:
        return _submitted(result, options.view_as(GoogleCloudOptions))
    if workers_inside(pipeline.options):  # the pipeline has made a copy, and there the runner writes
        return _watch(result, settings, stop)
    return _watch_from_outside(result, settings, stop)


def _pipeline(options: PipelineOptions) -> beam.Pipeline:
    """Raises BadParameters with what Beam finds wrong with its own options."""
    try:
        return beam.Pipeline(options=options)
    except ValueError as error:
        first, *faults = str(error).splitlines()
        if "validations errors" not in first:
            raise
        raise BadParameters(faults) from error


def workers_inside(options: PipelineOptions) -> bool:
    """Whether the submitted job's workers are threads of this process, which can tell them to drain.

    Known once the job is submitted: Prism and a Flink of this process's own choose it when nothing is given.
    """
    return bool(options.view_as(PortableOptions).environment_type == "LOOPBACK")


def _submitted(result: Any, cloud: GoogleCloudOptions) -> int:
    """Say what there is. In a template nothing may be asked of `result`, which has no job."""
    if cloud.template_location:
        log.info("the job is written to %s, from which it is started", cloud.template_location)
        return exit_codes.DRAINED
    job = result.job_id()
    where = f"{job} --region={cloud.region} --project={cloud.project}"
    log.info("submitted as %s (%s); to end it: gcloud dataflow jobs drain %s", cloud.job_name, job, where)
    return exit_codes.DRAINED


def _watch(result: Any, settings: Settings, stop: threading.Event) -> int:
    """Wait for the job's end, or for `stop`, and then for the drain."""
    watcher = _Watcher(result, stop)
    stop.wait()
    if not watcher.ended.is_set():
        log.info("draining: the feed is closed, what is received is being delivered")
        drain()
        if not watcher.ended.wait(settings.drain_timeout):
            log.error(
                "not ended within %.0f s (--drain_timeout): %s",
                settings.drain_timeout,
                NO_END_ON_FLINK if settings.runner in flink.RUNNERS else CANCELLED,
            )
            result.cancel()
            return exit_codes.FAILED
    return watcher.failed() or books.close(result, _names(settings))


def _watch_from_outside(result: Any, settings: Settings, stop: threading.Event) -> int:
    """Wait for the job's end, or for `stop`, which does nothing to the job: its workers are elsewhere, and
    Beam's own `cancel` is answered CANCELLED by Flink's job server while the job goes on."""
    watcher = _Watcher(result, stop)
    log.info("submitted; the job goes on without this process, which says how it ends")
    stop.wait()
    if watcher.ended.is_set():
        return watcher.failed() or books.close(result, _names(settings), savepoint=True)
    log.warning("this process ends, the job goes on; %s", HOW_TO_STOP)
    return exit_codes.DRAINED


def _names(settings: Settings) -> list[str]:
    return [name_of(destination) for destination in destinations(settings)]


class _Watcher:
    """Waits for the job in a thread, as Beam's wait cannot be interrupted."""

    def __init__(self, result: Any, stop: threading.Event) -> None:
        self.ended = threading.Event()
        self._result = result
        self._stop = stop
        self._state = ""
        threading.Thread(target=self._wait, name="job", daemon=True).start()

    def failed(self) -> int:
        """The exit code of a job that did not come to its end; 0 of one that did."""
        if self._state in ("DONE", "DRAINED"):
            return exit_codes.DRAINED
        log.error("the job ended %s", self._state)
        return exit_codes.FAILED

    def _wait(self) -> None:
        try:
            self._state = str(self._result.wait_until_finish())
        except Exception as error:  # noqa: BLE001 - how Beam says that a job failed or was cancelled
            self._state = f"with {type(error).__name__}: {error}"
        self.ended.set()
        self._stop.set()
