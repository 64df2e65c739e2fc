"""Prism, Beam's own portable runner, built once from Go's module proxy: a cluster in small.

It has what the in-process runner lacks: real streaming, state, processing-time timers, splits, checkpoints
with a delay. Its workers run inside the driver (LOOPBACK), so a test sees what they did.

Mark tests that use it `own_network(needs=prism.program)`: it listens on every interface.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tests.servers.process import go_program

VERSION = "2.77.0"
PACKAGE = "github.com/apache/beam/sdks/v2/go/cmd/prism"
BUILD_SECONDS = 900.0  # two minutes of two idle cores


def program() -> Path:
    """The built program. Skips the test, or fails it under CI, when it cannot be had."""
    return go_program("prism", PACKAGE, VERSION, BUILD_SECONDS)


def options(*more: str) -> PipelineOptions:
    """What a pipeline needs to run on it, streaming; `more` are further options of Beam's."""
    arguments = ["--runner=PrismRunner", f"--prism_location={program()}", "--prism_log_level=warn"]
    return PipelineOptions([*arguments, "--streaming", *more])


@contextlib.contextmanager
def running(build: Callable[[beam.Pipeline], object], *more: str) -> Iterator[Any]:
    """Runs what `build` puts into a pipeline; yields Beam's PipelineResult. The job is cancelled at the end
    of the block unless it is over by then."""
    pipeline = beam.Pipeline(options=options(*more))
    build(pipeline)
    result = pipeline.run()
    try:
        yield result
    finally:
        result.cancel()
        with contextlib.suppress(RuntimeError):  # how it says "cancelled"
            result.wait_until_finish(duration=10_000)


def metrics(result: Any) -> Mapping[str, Any]:
    """All metrics of a job as they are now: counters, distributions and gauges."""
    result._metrics = None  # what was asked for once would be answered for ever
    found: Mapping[str, Any] = result.metrics().query()
    return found
