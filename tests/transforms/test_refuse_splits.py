"""Bundles of stages with timers are never split, all others as before."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.bundle_processor import BundleProcessor

from transforms import refuse_splits as room
from transforms.refuse_splits import refuse_splits, unless_timed


def test_a_stage_with_timers_answers_that_it_cannot() -> None:
    asked = unless_timed(lambda processor, request: "split")
    assert asked(SimpleNamespace(timers_info={}), None) == "split"
    refused = asked(SimpleNamespace(timers_info={"due": object()}), None)
    assert refused == beam_fn_api_pb2.ProcessBundleSplitResponse()
    assert not refused.channel_splits


def test_beams_own_is_replaced_once_and_in_known_versions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    original = getattr(BundleProcessor.try_split, "__wrapped__", BundleProcessor.try_split)
    monkeypatch.setattr(BundleProcessor, "try_split", original)
    monkeypatch.setattr(room, "KNOWN", ("1.",))
    assert not refuse_splits()
    assert BundleProcessor.try_split is original
    monkeypatch.undo()
    monkeypatch.setattr(BundleProcessor, "try_split", original)
    assert refuse_splits()
    assert refuse_splits()
    assert BundleProcessor.try_split.__wrapped__ is original


def test_beams_bundle_processor_still_says_what_timers_it_has() -> None:
    assert "timers_info" in BundleProcessor.__init__.__code__.co_names
