"""Windows over arrival time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import GlobalWindow, TimestampedValue

from transforms.window import Window, window_end


class _Ends(beam.DoFn):
    def process(self, element: str, window: Any = beam.DoFn.WindowParam) -> Iterator[tuple[str, float]]:
        yield element, window_end(window)


def test_an_element_falls_into_the_window_of_its_timestamp() -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        times = [("a", 0.0), ("b", 299.999), ("c", 300.0)]
        stamped = pipeline | beam.Create(times) | beam.Map(lambda pair: TimestampedValue(*pair))
        ends = stamped | Window(300) | beam.ParDo(_Ends())
        assert_that(ends, equal_to([("a", 300.0), ("b", 300.0), ("c", 600.0)]))


def test_the_global_window_never_ends() -> None:
    assert window_end(GlobalWindow()) == math.inf


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
def test_a_window_must_last(seconds: float) -> None:
    with pytest.raises(ValueError, match="window lasts"):
        Window(seconds)
