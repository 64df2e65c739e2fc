"""What is another of Beam's own methods in this process, and in which versions."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from apache_beam.runners.worker.bundle_processor import BundleProcessor, FnApiUserStateContext
from apache_beam.runners.worker.sdk_worker import SdkWorker

from transforms import beam_internals
from transforms.refuse_splits import refuse_splits
from transforms.seldom_progress import tell_progress_seldom
from transforms.write.keyed.cells import make_when_used


@pytest.mark.parametrize(
    ("ask", "owner", "name"),
    [
        (refuse_splits, BundleProcessor, "try_split"),
        (tell_progress_seldom, SdkWorker, "process_bundle_progress"),
        (make_when_used, FnApiUserStateContext, "get_state"),
    ],
)
def test_beams_own_is_replaced_once_and_in_known_versions_only(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[[], bool], owner: type, name: str
) -> None:
    original = getattr(getattr(owner, name), "__wrapped__", getattr(owner, name))
    monkeypatch.setattr(owner, name, original)
    monkeypatch.setattr(beam_internals, "KNOWN", ("1.",))
    assert not ask()
    assert getattr(owner, name) is original
    monkeypatch.undo()
    monkeypatch.setattr(owner, name, original)
    assert ask()
    once = getattr(owner, name)
    assert ask()
    assert getattr(owner, name) is once
    assert once.__wrapped__ is original
