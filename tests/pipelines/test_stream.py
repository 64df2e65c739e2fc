"""The job's graph: its labels are pinned, and on one machine all of it is one fused stage."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import stream
from pipelines.beam import in_process_runner
from pipelines.flags.destinations import destinations
from pipelines.flags.settings import parse
from pipelines.local.lane import Lane
from pipelines.local.listener import ListenFailed
from pipelines.local.run import CannotStart
from pipelines.preflight import announce
from pipelines.stream import build, in_a_lane, on_a_cluster
from tests.integration.rehearsal import decoded
from transforms.clock import SystemClock
from transforms.feed.journal import Journal, JournalUnavailable
from transforms.preflight import Finding
from transforms.secret import LiteralSecret
from transforms.write.contract import Destination
from transforms.write.files.destination import Files
from transforms.write.splunk.destination import Splunk

GOLDEN = Path(__file__).parent / "golden_labels.txt"
TOKEN = "token-that-no-graph-may-hold"
BOUNDARIES = ("group_by_key", "flatten", "reshuffle", "combine")
ENVIRON = {"KEY": "0123456789abcdef"}
EVERYWHERE = [
    "--bigquery_table=my-project.d.t",
    "--s3_bucket=archive",
    "--gcs_bucket=archive",
    "--datadog_api_key=env:KEY",
    "--splunk_hec_url=https://splunk.example.com:8088",
    "--splunk_hec_token=env:KEY",
    "--kafka_bootstrap_servers=kafka:9092",
    "--pubsub_topic=projects/my-project/topics/again",
]
DATAFLOW = [
    "--runner=DataflowRunner",
    "--dead_letters=gs://bucket/dead_letters",
    "--project=my-project",
    "--region=europe-west1",
    "--temp_location=gs://bucket/tmp",
    "--sdk_container_image=example.com/grantex-beam:1",
]
READING = {
    "ReadFromGrantex": ["--feed_api_key=env:KEY", "--feed_connections=2"],
    "ReadFromPubSub": ["--pubsub_subscription=projects/my-project/subscriptions/events"],
}


@pytest.fixture
def lane(tmp_path: Path) -> Iterator[Callable[[Destination], Any]]:
    """Makes the proto of a lane's pipeline."""
    journal = Journal(tmp_path, feed_url="http://feed.test")

    def made(destination: Destination) -> Any:
        one = Lane(destination, journal, lambda pipeline, lane: None, clock=SystemClock())
        pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
        build(pipeline, [destination], in_a_lane(one, Path("letters")), window_size=300)
        return pipeline.to_runner_api()

    yield made
    journal.close()


@functools.cache
def cluster(reading: str, *more: str) -> Any:
    """The proto of the one job with every destination, to be looked at: it is built once, in two seconds."""
    settings = parse([*DATAFLOW, *EVERYWHERE, *READING[reading], *more], ENVIRON)
    pipeline = beam.Pipeline(in_process_runner(), PipelineOptions([]))
    build(pipeline, destinations(settings), on_a_cluster(settings), settings.window_size)
    return pipeline.to_runner_api()


def both() -> list[Destination]:
    return [Splunk("https://splunk.example.com:8088", LiteralSecret(TOKEN)), Files("out")]


def labels(proto: Any) -> set[str]:
    """Names of our own stages; those inside Beam's Create and ReadFromPubSub are not ours to keep."""
    names = {one.unique_name for one in proto.components.transforms.values()}
    beams = ("ref_", "ReadFromGrantex/Source/", "ReadFromPubSub/Messages/")
    return {name for name in names if not name.startswith(beams) and name}


@pytest.mark.parametrize("reading", READING)
def test_the_labels_are_those_that_running_jobs_know(reading: str) -> None:
    """A change here breaks the update of running cluster jobs: they match state by these names."""
    other = next(each for each in READING if each != reading)
    golden = [line for line in GOLDEN.read_text().splitlines() if not line.startswith(other)]
    assert sorted(labels(cluster(reading))) == golden


@pytest.mark.slow
def test_receipts_are_stages_of_their_own_behind_each_sink() -> None:
    """So that a running job may be given them, and have them taken away."""
    without, with_receipts = (
        labels(cluster("ReadFromGrantex", *more)) for more in ((), ("--receipts=gs://b/r",))
    )
    added = with_receipts - without
    assert without < with_receipts
    assert {name.partition("/")[0] for name in added} == {
        f"Write{name}Receipts" for name in ("BigQuery", "S3", "GCS", "Datadog", "Splunk", "Kafka", "PubSub")
    }


def test_a_lane_s_stages_are_called_as_on_a_cluster(lane: Callable[[Destination], Any]) -> None:
    whole = labels(cluster("ReadFromGrantex"))
    assert {name for name in labels(lane(both()[0])) if "/" not in name} <= whole


def test_a_lane_s_graph_has_no_stage_boundary(lane: Callable[[Destination], Any]) -> None:
    transforms = lane(both()[1]).components.transforms.values()
    assert [one.spec.urn for one in transforms if any(word in one.spec.urn for word in BOUNDARIES)] == []


def test_what_follows_the_journal_is_one_stage_on_the_in_process_runner(
    lane: Callable[[Destination], Any],
) -> None:
    """Else a dead letter might be written after its receipt, and nothing would fire before the end."""
    _, stages = in_process_runner().create_stages(lane(both()[1]))
    names = [sorted(one.unique_name for one in stage.transforms) for stage in stages]
    reading = [stage for stage in names if any("ReadFromGrantex/Journal" in name for name in stage)]
    whole = reading[-1]
    for part in ("ReadFromGrantex/Journal", "Window", "WriteToFiles/Deliver"):
        assert any(part in name for name in whole), (part, names)
    assert any("WriteFilesDeadLetters/Append" in name for name in whole), names


def test_a_lane_s_graph_holds_tickets_and_no_settings(lane: Callable[[Destination], Any]) -> None:
    text = b"".join(decoded(lane(both()[0]).SerializeToString()))
    assert b"splunk" in text
    assert b"transforms.in_process" in text
    assert TOKEN.encode() not in text
    assert b"example.com" not in text


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JournalUnavailable("cannot open the journal: No space left on device"), 1),
        (ListenFailed("127.0.0.1:8787 cannot be listened on (Too many open files)"), 1),
        (CannotStart("--state_dir=x: in use"), 2),
    ],
)
def test_exit_code_2_is_for_what_a_person_mends(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception, code: int
) -> None:
    """Units start again on 1, and not on 2."""

    def fail(*_: object) -> int:
        raise error

    monkeypatch.setattr(stream, "_on_this_machine", fail)
    monkeypatch.setattr(stream, "stop_on_signals", threading.Event)
    monkeypatch.setattr("pipelines.local.logs.configure", lambda *_: None)
    assert stream.main(["--feed_api_key=0123456789abcdef", "--files_dir=x"]) == code
    assert code == 2 or str(error) in caplog.text


def test_the_start_says_where_from_and_where_to_without_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    settings = parse(["--feed_api_key=env:KEY", *EVERYWHERE], ENVIRON)
    with caplog.at_level("INFO"):
        announce("https://api.grantex.dev", destinations(settings))
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "reading from https://api.grantex.dev"
    assert "splunk: events go to index main at https://splunk.example.com:8088" in lines
    assert "bigquery: events go to my-project.d.t" in lines
    assert len(lines) == 1 + len(destinations(settings))
    assert ENVIRON["KEY"] not in caplog.text


def test_the_start_says_what_goes_there_where_that_is_not_all(caplog: pytest.LogCaptureFixture) -> None:
    asked = ["--files_types=grant.*,!grant.revoked", "--files_pseudonymize=data.p", "--pseudonym_key=env:KEY"]
    with caplog.at_level("INFO"):
        announce("", destinations(parse(["--feed_api_key=env:KEY", "--files_dir=out", *asked], ENVIRON)))
    assert (
        "files: events go to out; only grant.*, !grant.revoked; with pseudonyms in data.p" in caplog.messages
    )


@pytest.mark.parametrize(
    ("mode", "code", "tried", "submitted"),
    [("warn", 0, True, True), ("off", 0, False, True), ("strict", 3, True, False)],
)
def test_what_a_cluster_is_to_deliver_to_is_tried_from_here(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    code: int,
    tried: bool,
    submitted: bool,
) -> None:
    ran: list[str] = []

    def refused() -> Iterator[Finding]:
        ran.append("tried")
        yield Finding("the HEC token", False, "HEC refuses it")

    def submit(*_: object) -> int:
        ran.append("submitted")
        return 0

    monkeypatch.setattr(stream, "tries", lambda *_: {"splunk": refused})
    monkeypatch.setattr("pipelines.cluster.run.run", submit)
    settings = parse([*DATAFLOW, *EVERYWHERE, *READING["ReadFromGrantex"], f"--preflight={mode}"], ENVIRON)
    assert stream._on_a_cluster(settings, threading.Event()) == code
    assert (("tried" in ran), ("submitted" in ran)) == (tried, submitted)
    assert ("splunk: the HEC token did not pass: HEC refuses it" in caplog.text) == tried
