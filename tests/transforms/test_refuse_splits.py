"""Bundles of stages with timers are never split, all others as before."""

from __future__ import annotations

from types import SimpleNamespace

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.bundle_processor import BundleProcessor

from transforms.refuse_splits import unless_timed


def test_a_stage_with_timers_answers_that_it_cannot() -> None:
    asked = unless_timed(lambda processor, request: "split")
    assert asked(SimpleNamespace(timers_info={}), None) == "split"
    refused = asked(SimpleNamespace(timers_info={"due": object()}), None)
    assert refused == beam_fn_api_pb2.ProcessBundleSplitResponse()
    assert not refused.channel_splits


def test_beams_bundle_processor_still_says_what_timers_it_has() -> None:
    assert "timers_info" in BundleProcessor.__init__.__code__.co_names
