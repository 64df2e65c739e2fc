"""A run as one job on a cluster: submitted, and watched for as long as this process is a part of it."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines import exit_codes
from pipelines.cluster import dataflow, flink, report
from pipelines.flags.destinations import destinations
from pipelines.flags.general import DATAFLOW
from pipelines.flags.settings import BadParameters
from transforms.feed.worker.sessions import drain
from transforms.write.contract import name_of
from transforms.write.dead_letters.objects import LetterObjects

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

log = logging.getLogger("grantex.run")


def close(result: Any, destinations: Iterable[str], *, savepoint: bool = False) -> int:
    """Say what the counters of a job that is done say; returns the exit code.

    savepoint: it may have been stopped with one, and what was under way is in there.
    """
    counted = counters(result)
    if counted is None:
        log.warning("drained; whether anything is missing is not known, as the runner has counted nothing")
        return exit_codes.DRAINED
    lacking = missing(counted, destinations)
    if not lacking:
        log.info("drained: every event received is delivered or a dead letter")
        return exit_codes.DRAINED
    for name, number in lacking.items():
        if savepoint:
            log.warning("%s: %d are in the savepoint the job was stopped with, else lost", name, number)
        else:
            log.error("%s: %d are lost: received, and neither delivered nor a dead letter", name, number)
    return exit_codes.DRAINED if savepoint else exit_codes.FAILED


def counters(result: Any) -> Mapping[str, int] | None:
    """Our counters over all stages, by name; None when the runner gives none."""
    sums: dict[str, int] = {}
    for one in report.metrics(result, "counters") or ():
        sums[one.key.metric.name] = sums.get(one.key.metric.name, 0) + (one.result or 0)
    return sums or None


def missing(counted: Mapping[str, int], destinations: Iterable[str]) -> dict[str, int]:
    """For each destination with any: events received that are neither delivered there nor dead letters, nor
    filtered.

    An id that came through two connections is one event. For the objects of dead letters, under their own
    name: those that were not written. What was delivered twice can hide what is missing, so this may find
    too few and never too many.
    """
    due = counted.get("feed_events_received", 0) - counted.get("feed_events_repeated", 0)
    found = {
        name: due
        - counted.get(f"{name}_events_delivered", 0)
        - counted.get(f"{name}_events_dead_lettered", 0)
        - counted.get(f"{name}_events_filtered", 0)
        for name in destinations
    }
    letters = LetterObjects.name
    # Those that are given up at the drain are no dead letters of anybody.
    found[letters] = counted.get(f"{letters}_events_received", 0) - counted.get(
        f"{letters}_events_delivered", 0
    )
    return {name: number for name, number in found.items() if number > 0}


# Flink's job server reads that option as well, and refuses a job with a level that Java has not; Python knows
# both names.
JAVA_LEVELS = {"WARNING": "WARN", "CRITICAL": "ERROR", "FATAL": "ERROR"}


def pipeline_options(settings: Settings, environ: Mapping[str, str]) -> PipelineOptions:
    """Beam's options only: whatever is in them is part of the job's graph, so none of ours are."""
    options = _given(settings)
    standard = options.view_as(StandardOptions)
    standard.runner = settings.runner
    standard.streaming = True
    setup = options.view_as(SetupOptions)
    # Nothing of this job lives in a main session, and whatever does (an environment, say) stays at home.
    setup.save_main_session = False
    setup.pickle_library = "cloudpickle"
    workers = options.view_as(WorkerOptions)
    level = workers.default_sdk_harness_log_level or settings.log_level
    workers.default_sdk_harness_log_level = JAVA_LEVELS.get(level, level)
    if settings.runner == DATAFLOW:
        dataflow.pin(options, environ)
    return options


def _given(settings: Settings) -> PipelineOptions:
    if settings.runner in flink.RUNNERS:
        from pipelines.cluster.flink_options import FlinkSubmissionOptions  # known to Beam from here on

        return FlinkSubmissionOptions(list(settings.beam_args))
    return PipelineOptions(list(settings.beam_args))


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
    pipeline = pipeline_with(options)
    graph(pipeline)
    result = pipeline.run()
    if settings.runner == DATAFLOW:
        return submitted(result, options.view_as(GoogleCloudOptions))
    if workers_inside(pipeline.options):  # the pipeline has made a copy, and there the runner writes
        return _watch(result, settings, stop)
    return _watch_from_outside(result, settings, stop)


def pipeline_with(options: PipelineOptions) -> beam.Pipeline:
    """An empty one. Raises BadParameters with what Beam finds wrong with its own options."""
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


def submitted(result: Any, cloud: GoogleCloudOptions) -> int:
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
    gc.freeze()  # what is there by now stays, as on one machine: see local/run.py
    watcher = _Watcher(result, stop)
    _report_until(stop, result, settings)
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
    return watcher.failed() or close(result, _names(settings))


def _watch_from_outside(result: Any, settings: Settings, stop: threading.Event) -> int:
    """Wait for the job's end, or for `stop`, which does nothing to the job: its workers are elsewhere, and
    Beam's own `cancel` is answered CANCELLED by Flink's job server while the job goes on."""
    watcher = _Watcher(result, stop)
    log.info("submitted; the job goes on without this process, which says how it ends")
    _report_until(stop, result, settings)
    if watcher.ended.is_set():
        return watcher.failed() or close(result, _names(settings), savepoint=True)
    log.warning("this process ends, the job goes on; %s", HOW_TO_STOP)
    return exit_codes.DRAINED


def _report_until(stop: threading.Event, result: Any, settings: Settings) -> None:
    watched = report.Report(result, _names(settings))
    while not stop.wait(report.EVERY):
        watched.look()


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
