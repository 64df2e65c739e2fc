"""The in-process runner: bundles of an endless source, in flat memory."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.restriction_trackers import OffsetRange
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, fn_runner
from apache_beam.transforms import core
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.utils import interactive_utils

from pipelines import beam as ours
from pipelines.beam import LaneOptions
from transforms.feed.source import FeedRestrictionTracker

BUNDLES = 300
seen: list[int] = []


class _Provider(RestrictionProvider):  # type: ignore[misc]
    def initial_restriction(self, element: int) -> OffsetRange:
        return OffsetRange(0, element)

    def create_tracker(self, restriction: OffsetRange) -> FeedRestrictionTracker:
        return FeedRestrictionTracker(restriction, lambda position: 0)

    def restriction_size(self, element: int, restriction: OffsetRange) -> int:
        return 1


_TRACKER = beam.DoFn.RestrictionParam(_Provider())


class _OneABundle(beam.DoFn):
    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(self, element: int, tracker: Any = _TRACKER) -> Iterator[int]:
        position = tracker.current_restriction().start
        if tracker.try_claim(position):
            yield position
            tracker.defer_remainder()


class _Remember(beam.DoFn):
    def process(self, element: int) -> None:
        seen.append(element)


def _grown(bundles: int) -> int:
    """Bytes still held after a run of so many bundles, beyond those of a short run."""
    seen.clear()
    pipeline = beam.Pipeline(ours.in_process_runner(), PipelineOptions([]))
    _ = pipeline | beam.Create([bundles]) | beam.ParDo(_OneABundle()) | beam.ParDo(_Remember())
    tracemalloc.start()
    result = pipeline.run()
    gc.collect()  # what waits for the collector is not held, and is more where much else is in memory
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert result.state == "DONE"
    assert seen == list(range(bundles))
    return held


def test_direct_runner_means_the_in_process_runner() -> None:
    assert isinstance(ours.in_process_runner(), FnApiRunner)


@pytest.mark.slow
def test_memory_does_not_grow_with_bundles() -> None:
    _grown(10)  # imports and caches
    per_bundle = (_grown(BUNDLES) - _grown(10)) / BUNDLES
    # 1,600 traced without the remedy (and 20,000 more in protobuf's own memory, which is not traced).
    assert per_bundle < 400


def test_the_remedy_is_kept_to_the_versions_it_was_tried_with(monkeypatch: pytest.MonkeyPatch) -> None:
    before = fn_runner.consolidate_monitoring_infos
    monkeypatch.setattr(beam, "__version__", "2.99.0")
    assert not ours.hold_memory_flat()
    assert fn_runner.consolidate_monitoring_infos is before


def test_the_remedy_is_applied_once() -> None:
    ours.hold_memory_flat()
    once = fn_runner.consolidate_monitoring_infos
    ours.hold_memory_flat()
    assert fn_runner.consolidate_monitoring_infos is once


def test_the_views_of_a_lane_s_options_are_made_once_and_share_their_values() -> None:
    options = LaneOptions(["--streaming", "--job_name=lane"])
    view = options.view_as(StandardOptions)
    assert options.view_as(StandardOptions) is view
    assert view.streaming
    options.view_as(GoogleCloudOptions).job_name = "other"
    assert options.view_as(GoogleCloudOptions).job_name == "other"
    assert PipelineOptions.view_as(options, GoogleCloudOptions).job_name == "other"
    assert options.get_all_options(drop_default=True)["streaming"] is True


def test_a_lane_s_pipeline_takes_the_options_as_they_are() -> None:
    options = LaneOptions(["--streaming", "--job_name=lanes"])
    pipelines = [beam.Pipeline(ours.in_process_runner(), options) for _ in range(2)]
    assert all(pipeline.options is options for pipeline in pipelines)
    assert options.view_as(GoogleCloudOptions).job_name == "lanes"


def test_beam_searches_once_for_ipython() -> None:
    ours.search_once()
    assert interactive_utils.is_in_ipython() is interactive_utils.is_in_ipython() is False
    assert interactive_utils.is_in_ipython.cache_info().misses == 1


class _OfTwoMethods(beam.DoFn):
    def process(self, element: int, window: Any = beam.DoFn.WindowParam, *more: int) -> None: ...

    def of_its_own(self, first: str, second: int = 2) -> None: ...


def test_arguments_of_methods_are_inspected_once_and_are_as_beam_reads_them() -> None:
    ours.inspect_once()
    once, beam_s_own = core.get_function_args_defaults, core.get_function_args_defaults.__wrapped__
    names = ("process", "of_its_own", "setup", "from_runner_api")
    methods = [getattr(_OfTwoMethods(), name) for name in names]
    for each in [*methods, *methods, _OneABundle().process, core.get_signature, str.upper]:
        assert once(each) == beam_s_own(each)
    once(methods[1])[1].append("whoever asks may change what it is told")
    assert once(methods[1]) == (["first", "second"], [2])


def test_a_second_pipeline_is_built_and_started_with_little_to_inspect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []
    inspect = core.get_signature

    def counted(function: Any) -> Any:
        asked.append(function)
        return inspect(function)

    monkeypatch.setattr(core, "get_signature", counted)
    _grown(1)
    asked.clear()
    _grown(1)
    assert len(asked) < 100  # 1,400 without


ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    """What a new interpreter says while it runs this."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_job_does_not_load_arrow_and_says_nothing_of_it_and_others_still_can() -> None:
    said = run(
        "import sys, pipelines.stream\n"
        "assert 'pyarrow' not in sys.modules\n"
        "import pyarrow\n"
        "assert pyarrow.array([1]).to_pylist() == [1]"
    )
    assert said == ""


@pytest.mark.slow
def test_what_is_loaded_already_stays() -> None:
    run("import pyarrow, sys, pipelines.stream\nassert sys.modules['pyarrow'] is pyarrow")
