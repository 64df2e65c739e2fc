"""Coders: what goes in comes out, in whatever process and version."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import Coder, registry
from apache_beam.portability import python_urns

from pipelines.local.lane import Lane
from pipelines.stream import build, in_a_lane
from transforms.clock import SystemClock
from transforms.coders import ChunkCoder, DeadLetterCoder, ReceiptCoder
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event, EventIds, Receipt
from transforms.feed.journal import Journal
from transforms.write.files.destination import Files

EVENTS = [
    Event("evt_1", "grant.created", "2026-03-01T12:00:00Z", b'{"id":"evt_1"}'),
    Event("\u00e9", "", "", b"\xff\x00"),
]
VALUES = [
    (ChunkCoder(), Chunk(EVENTS, 7, 12.5)),
    (ChunkCoder(), Chunk((), 9, 0.25, flush=True)),
    (ReceiptCoder(), Receipt("s3", "ab" * 16, ["evt_1", "evt_2"], 3)),
    (ReceiptCoder(), Receipt("s3", "ab" * 16, EventIds(EVENTS, [1, 0]), 3, 7.5, "index main")),
    (DeadLetterCoder(), DeadLetter("write", "s3", "too_large: 5 bytes", b"\xff", "evt_1", 2, 1.5)),
]


def fields(value: Any) -> Any:
    return (list(value.events), value.first, value.taken_at, value.flush) if type(value) is Chunk else value


@pytest.mark.parametrize(("coder", "value"), VALUES)
def test_what_goes_in_comes_out(coder: Coder, value: object) -> None:
    assert fields(coder.decode(coder.encode(value))) == fields(value)


def test_the_ids_of_a_receipt_are_a_list_for_all_that_anybody_sees() -> None:
    ids = EventIds(EVENTS, range(2))
    assert ids == ["evt_1", "é"] == ids
    assert (len(ids), ids[-1], ids[:1], repr(ids)) == (2, "é", ["evt_1"], "['evt_1', 'é']")
    assert pickle.loads(pickle.dumps(ids)) == ["evt_1", "é"]
    assert type(pickle.loads(pickle.dumps(ids))) is list


@pytest.mark.parametrize(("coder", "value"), VALUES)
def test_a_coder_works_after_it_was_pickled(coder: Coder, value: object) -> None:
    coder.decode(coder.encode(value))
    copy = pickle.loads(pickle.dumps(coder))
    assert copy == coder
    assert hash(copy) == hash(coder)
    assert fields(copy.decode(coder.encode(value))) == fields(value)


@pytest.mark.parametrize(("coder", "value"), VALUES)
def test_another_version_is_refused(coder: Coder, value: object) -> None:
    with pytest.raises(ValueError, match="reads version 1, not 02"):
        coder.decode(b"\x02" + coder.encode(value)[1:])
    with pytest.raises(ValueError, match="not nothing"):
        coder.decode(b"")


@pytest.mark.parametrize(("coder", "value"), VALUES)
def test_a_size_is_estimated_without_encoding(coder: Coder, value: object) -> None:
    assert coder.estimate_size(value) == pytest.approx(len(coder.encode(value)), abs=150)


def test_they_are_the_coders_of_their_types() -> None:
    for coder, value in VALUES:
        assert registry.get_coder(type(value)) == coder


def test_no_stage_of_the_job_pickles_its_elements(tmp_path: Path) -> None:
    pipeline = beam.Pipeline()
    journal = Journal(tmp_path, feed_url="http://feed.test")
    lane = Lane(Files("out"), journal, lambda pipeline, lane: None, clock=SystemClock())
    build(pipeline, [lane.destination], in_a_lane(lane, Path("d")), window_size=60)
    journal.close()
    components = pipeline.to_runner_api().components
    used = [components.coders[each.coder_id].spec for each in components.pcollections.values()]
    ours = {spec.payload for spec in used if spec.urn == python_urns.PICKLED_CODER}
    assert len(ours) == 3
    for name in (b"ChunkCoder", b"ReceiptCoder", b"DeadLetterCoder"):
        assert any(name in payload for payload in ours)
