"""Beam's options of a cluster's job: what was given, what is pinned, and nothing of ours."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from apache_beam.options.pipeline_options import (
    DebugOptions,
    PipelineOptions,
    SetupOptions,
    StandardOptions,
    WorkerOptions,
)

from pipelines.cluster.run import pipeline_options
from pipelines.flags.settings import parse
from tests.pipelines.flags.test_rules import DATAFLOW, ENVIRON, FEED, KAFKA, LETTERS


def options(*argv: str, **environ: str) -> PipelineOptions:
    settings = parse([FEED, KAFKA, LETTERS, *argv], {**ENVIRON, **environ})
    return pipeline_options(settings, environ)


@pytest.mark.parametrize("runner", ["FlinkRunner", "PortableRunner", "PrismRunner"])
def test_every_runner_streams_and_takes_no_main_session(runner: str) -> None:
    found = options(f"--runner={runner}", "--save_main_session=true")
    assert found.view_as(StandardOptions).runner == runner
    assert found.view_as(StandardOptions).streaming
    assert found.view_as(SetupOptions).save_main_session is False
    assert found.view_as(SetupOptions).pickle_library == "cloudpickle"
    assert found.view_as(WorkerOptions).num_workers is None
    assert found.view_as(DebugOptions).experiments is None


def test_none_of_our_parameters_is_among_them() -> None:
    found: dict[str, Any] = options("--runner=PrismRunner", "--job_name=n").get_all_options(drop_default=True)
    ours = {"runner", "streaming", "save_main_session", "pickle_library", "default_sdk_harness_log_level"}
    assert found.keys() <= ours | {"job_name"}


@pytest.mark.parametrize("level", ["DEBUG", "INFO", "WARNING", "ERROR"])
@pytest.mark.parametrize("runner", ["FlinkRunner", "PrismRunner"])
def test_workers_log_what_the_job_logs(runner: str, level: str) -> None:
    """In a word that Java knows as well (SdkHarnessOptions.LogLevel): Flink's job server reads it, too."""
    found = options(f"--runner={runner}", f"--log_level={level}").view_as(WorkerOptions)
    said = str(found.default_sdk_harness_log_level)
    assert said in {"OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"}
    assert getattr(logging, said) == getattr(logging, level)
    beams = options(f"--runner={runner}", f"--default_sdk_harness_log_level={level}").view_as(WorkerOptions)
    assert beams.default_sdk_harness_log_level == said


def test_beam_s_own_option_goes_before_ours() -> None:
    more = "--default_sdk_harness_log_level=DEBUG"
    found = options("--runner=PrismRunner", "--log_level=ERROR", more).view_as(WorkerOptions)
    assert found.default_sdk_harness_log_level == "DEBUG"
    more = "--default_sdk_harness_log_level=CRITICAL"
    found = options("--runner=FlinkRunner", more).view_as(WorkerOptions)
    assert found.default_sdk_harness_log_level == "ERROR", "Java has no word for more"


def test_dataflow_has_what_the_job_needs() -> None:
    found = options(*DATAFLOW, "--experiments=a,b")
    workers = found.view_as(WorkerOptions)
    assert (workers.num_workers, workers.max_num_workers, workers.autoscaling_algorithm) == (2, 2, "NONE")
    assert workers.machine_type == "n2-standard-2"
    assert workers.sdk_container_image == "i"
    assert workers.use_public_ips is None
    debug = found.view_as(DebugOptions)
    assert debug.experiments == ["a", "b", "no_use_multiple_sdk_containers"]
    assert debug.number_of_worker_harness_threads == 12
    assert found.view_as(SetupOptions).sdk_location == "container"
    assert found.view_as(SetupOptions).save_main_session is False


@pytest.mark.parametrize("given", ["--num_workers=3", "--max_num_workers=3"])
def test_the_number_of_workers_is_fixed(given: str) -> None:
    workers = options(*DATAFLOW, given).view_as(WorkerOptions)
    assert (workers.num_workers, workers.max_num_workers) == (3, 3)


def test_the_image_says_what_it_is_called_and_a_flag_wins() -> None:
    given = [each for each in DATAFLOW if not each.startswith("--sdk_container_image")]
    found = options(*given, WORKER_IMAGE="example.com/image:1").view_as(WorkerOptions)
    assert found.sdk_container_image == "example.com/image:1"
    found = options(*DATAFLOW, WORKER_IMAGE="example.com/image:1").view_as(WorkerOptions)
    assert found.sdk_container_image == "i"


def test_options_of_the_flink_runner_are_passed_on_and_no_others_are_added() -> None:
    given = ("--checkpointing_interval=3000", "--object_reuse=true")
    found = options("--runner=PortableRunner", *given).get_all_options(drop_default=True)
    assert (found["checkpointing_interval"], found["object_reuse"]) == (3000, True)
    assert "savepoint_path" not in found
