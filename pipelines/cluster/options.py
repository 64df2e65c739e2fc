"""Beam's options for one job on a cluster: those that were given, and what this job needs of any runner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from apache_beam.options.pipeline_options import (
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.cluster import dataflow, flink
from pipelines.groups.run import DATAFLOW

if TYPE_CHECKING:
    from pipelines.settings import Settings


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
    workers.default_sdk_harness_log_level = workers.default_sdk_harness_log_level or settings.log_level
    if settings.runner == DATAFLOW:
        dataflow.pin(options, environ)
    return options


def _given(settings: Settings) -> PipelineOptions:
    if settings.runner in flink.RUNNERS:
        from pipelines.cluster.flink_options import FlinkSubmissionOptions  # known to Beam from here on

        return FlinkSubmissionOptions(list(settings.beam_args))
    return PipelineOptions(list(settings.beam_args))
