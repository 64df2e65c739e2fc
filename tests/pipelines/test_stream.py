"""The job's graph: its labels are pinned, and on one machine all of it is one fused stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.local.runner import in_process_runner
from pipelines.stream import build
from transforms.secret import LiteralSecret
from transforms.write.bigquery import BigQuery
from transforms.write.contract import Destination
from transforms.write.datadog import Datadog
from transforms.write.files import Files
from transforms.write.kafka import Kafka
from transforms.write.s3 import S3
from transforms.write.splunk import Splunk

GOLDEN = Path(__file__).parent / "golden_labels.txt"
TOKEN = "token-that-no-graph-may-hold"
BOUNDARIES = ("group_by_key", "flatten", "reshuffle", "combine")


def graph(*destinations: Destination, lane: str | None = None) -> Any:
    """The pipeline's proto."""
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    build(pipeline, destinations, source="files", window_size=300, dead_letters=Path("letters"), lane=lane)
    return pipeline.to_runner_api()


def both() -> list[Destination]:
    return [Splunk("https://splunk.example.com:8088", LiteralSecret(TOKEN)), Files("out")]


def every() -> list[Destination]:
    others = [BigQuery("p-r-o.d.t"), S3("archive"), Datadog(LiteralSecret(TOKEN)), Kafka("kafka:9092")]
    return [*others, *both()]


def labels(proto: Any) -> set[str]:
    """Names of our own stages; those inside Beam's Create differ from version to version."""
    names = {one.unique_name for one in proto.components.transforms.values()}
    return {name for name in names if not name.startswith(("ref_", "ReadFromGrantex/Source/")) and name}


def test_the_labels_are_those_that_running_jobs_know() -> None:
    """A change here breaks the update of running cluster jobs: they match state by these names."""
    lanes = [labels(graph(one, lane=one.name)) for one in every()]
    whole = labels(graph(*every()))
    assert sorted(whole.union(*lanes)) == GOLDEN.read_text().splitlines()


def test_a_lane_s_graph_has_no_stage_boundary() -> None:
    transforms = graph(both()[1], lane="files").components.transforms.values()
    assert [one.spec.urn for one in transforms if any(word in one.spec.urn for word in BOUNDARIES)] == []


def test_what_follows_the_journal_is_one_stage_on_the_in_process_runner() -> None:
    """Else a dead letter might be written after its receipt, and nothing would fire before the end."""
    _, stages = in_process_runner().create_stages(graph(both()[1], lane="files"))
    names = [sorted(one.unique_name for one in stage.transforms) for stage in stages]
    reading = [stage for stage in names if any("ReadFromGrantex/Journal" in name for name in stage)]
    whole = reading[-1]
    for part in ("ReadFromGrantex/Journal", "WriteFeedDeadLetters", "Window", "WriteToFiles/Deliver"):
        assert any(part in name for name in whole), (part, names)
    assert any("WriteFilesDeadLetters/Append" in name for name in whole), names


def test_a_lane_s_graph_holds_names_and_no_settings() -> None:
    text = graph(both()[0], lane="splunk").SerializeToString()
    assert b"splunk" in text
    assert TOKEN.encode() not in text
    assert b"example.com" not in text
