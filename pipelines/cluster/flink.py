"""Options of Beam's Java runner for Flink, of which Python hears only when it submits a job.

A job with checkpoints (--checkpointing_interval) never ends on Flink, not even when the feed has said that it
is over or workers inside the driver have drained: all is delivered then, and Beam's runner keeps its first
source alive so that Flink goes on taking checkpoints (its ImpulseSourceFunction). Without checkpoints the job
ends with the feed, but nothing outlives a failure.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Mapping, Sequence

RUNNERS = ("FlinkRunner", "PortableRunner")
# Named after FlinkPipelineOptions and PortablePipelineOptions of Beam's Java runner, whose defaults and
# meanings they have. Not among them: shutdown_sources_after_idle_ms, which counts from that source's start,
# however much the feed still sends, and loses what is left of it; and what is for bounded input.
NUMBERS = (
    "auto_watermark_interval",
    "checkpoint_timeout_millis",
    "checkpointing_interval",
    "execution_retry_delay",
    "job_check_interval_in_secs",
    "latency_tracking_interval",
    "max_bundle_size",
    "max_bundle_time_mills",
    "min_pause_between_checkpoints",
    "num_concurrent_checkpoints",
    "number_of_execution_retries",
)
TEXTS = (
    "checkpointing_mode",
    "flink_conf_dir",
    "savepoint_path",
    "state_backend",
    "state_backend_storage_path",
)
# Off unless they are given.
SWITCHES = (
    "allow_non_restored_state",
    "disable_metrics",
    "enable_stable_input_drain",
    "externalized_checkpoints_enabled",
    "finish_bundle_before_checkpointing",
    "force_unaligned_checkpoint_enabled",
    "load_balance_bundles",
    "object_reuse",
    "retain_externalized_checkpoints_on_cancellation",
    "unaligned_checkpoint_enabled",
)


def warnings(beam_args: Sequence[str]) -> Iterator[str]:
    """What a job keeps when a worker fails is asked for, or nothing."""
    interval = [one.partition("=")[2] for one in beam_args if one.startswith("--checkpointing_interval=")]
    if interval[-1:] in ([], ["-1"]):
        yield (
            "--checkpointing_interval: without it Flink keeps no checkpoints, and when a worker fails what "
            "the job holds is lost and no gap is recorded; for example --checkpointing_interval=10000 (ms)"
        )


def declare(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Without defaults: what is not given is left to the runner."""
    actions = [parser.add_argument(f"--{name}", type=int) for name in NUMBERS]
    actions += [parser.add_argument(f"--{name}") for name in TEXTS]
    actions += [parser.add_argument(f"--{name}", action="store_true", default=None) for name in SWITCHES]
    return actions


@functools.cache
def flags() -> Mapping[str, argparse.Action]:
    """By name, as Beam's own are described."""
    return {action.dest: action for action in declare(argparse.ArgumentParser(add_help=False))}
