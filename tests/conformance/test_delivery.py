"""Every destination delivers everything once, in whatever batches, to a lane and to anybody's pipeline."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.beam import in_process_runner
from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.tally import Tally
from transforms.batch import BatchPolicy
from transforms.write.write_to import WriteTo


def test_everything_is_delivered_as_it_was_received(case: Case, tally: Tally, tmp_path: Path) -> None:
    received = events(0, 250)
    lane = Lane(tmp_path, case.destination())
    lane.take(received)
    lane.run()
    assert lane.close()
    assert case.differing(received) == []
    assert sorted(lane.delivered) == [event.id for event in received]
    assert len(lane.receipts) == 3
    row = tally.account(case, "none", received, lane)
    assert (row.delivered, row.repeated) == (250, 0)


def test_batches_of_one_event(case: Case, tally: Tally, tmp_path: Path) -> None:
    received = events(0, 20)
    lane = Lane(tmp_path, case.destination(BatchPolicy(max_events=1, max_age=1.0)))
    lane.take(received)
    lane.run()
    assert lane.close()
    assert [receipt.event_ids for receipt in lane.receipts] == [[event.id] for event in received]
    assert tally.account(case, "none", received, lane).repeated == 0


def test_everything_is_delivered_by_a_pipeline_without_lanes(case: Case, tally: Tally) -> None:
    received = events(0, 250)
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    _ = pipeline | beam.Create([event.raw for event in received]) | WriteTo(case.destination())
    pipeline.run().wait_until_finish()
    assert case.differing(received) == []
    assert case.ids() == Counter(event.id for event in received)
