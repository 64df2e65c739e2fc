"""Gaps that are true, in short: gap_test.py has more of the same, and the job itself."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.integration.gap_test import LONGER, torment_job, torment_pair, torment_streams
from tests.integration.job import World
from transforms.feed import kept, reader, reconnect, request, watch, websocket
from transforms.feed.request import BOTH, SSE


def test_two_connections_killed_frozen_and_cut(tmp_path: Path) -> None:
    found = torment_streams(tmp_path, 4, random.Random(11))
    print(found)
    assert found.missing
    assert found.outside == 0
    assert found.recorded <= found.true * LONGER, str(found)


def test_the_job_stalled_and_then_ended(around: World) -> None:
    found = torment_job(around, 4, random.Random(12))
    print(found)
    assert found.missing
    assert (found.outside, found.late) == (0, 0), str(found)


@pytest.mark.parametrize("transport", [SSE, BOTH])
def test_two_connections_that_watch_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    """Three times as fast as in the job, so that it fits here."""
    for module, name, seconds in (
        (watch, "LATE", 1.0),
        (watch, "AS_NEW", 0.3),
        (watch, "LOOK_EVERY", 0.15),
        (reader, "LOOK_EVERY", 0.15),
        (kept, "PROVEN_AFTER", 0.6),
        (request, "MIN_STREAM_SECONDS", 0.7),
        (reconnect, "LIVE_AFTER", 0.0),
        (websocket, "SUBSCRIBED_AFTER", 0.05),
    ):
        monkeypatch.setattr(module, name, seconds)
    faults = ["cut", "freeze", "kill", "freeze"]
    dice = random.Random(13)
    found = torment_pair(tmp_path, faults, 1, dice, most_wait=0.2, limit=5.0 / 3, transport=transport)
    print(found)
    assert found.alone.missing == 0
    assert found.both.missing
    assert found.both.outside == 0
    assert found.both.longest <= found.limit
    assert (found.most_streams, found.refused) == (3, 0)
