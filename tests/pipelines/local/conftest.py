"""Runs in this process end their streams at once: what waits for the service's slots has tests of its own."""

from __future__ import annotations

import pytest

from transforms.feed import request


@pytest.fixture(autouse=True)
def _streams_end_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request, "MIN_STREAM_SECONDS", 0.0)
