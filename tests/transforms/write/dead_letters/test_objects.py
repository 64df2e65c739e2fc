"""Dead letters in a bucket of a real S3 server: written by a lane, by a bundle, by timers; read again."""

from __future__ import annotations

from collections.abc import Iterator

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.options.value_provider import RuntimeValueProvider
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that, equal_to

from tests.servers.process import free_port
from tests.servers.seaweedfs import SeaweedFS
from transforms.dead_letter import DeadLetter, DeadLetterError
from transforms.event import Batch
from transforms.write.dead_letters.directory import WriteDeadLetters, read_dead_letters
from transforms.write.dead_letters.objects import LetterObjects, _as_event

LETTERS = [
    DeadLetter("write", "splunk", "bad_field: x", b'{"id":"evt_1"}', "evt_1", 2, 1_772_366_399.5),
    DeadLetter("write", "splunk", "bad_field: y", b'{"id":"evt_2"}', "evt_2", 1, 1_772_366_400.0),
    DeadLetter("feed", "", "not_json: at byte 1", b"\xff\xfe", "", 0, 1_772_452_800.0),
    DeadLetter("feed", "", "feed_gap: 3.0 s", b'{"from":1}', "", 0, 1_772_452_801.0),
]


@pytest.fixture
def prefix(
    seaweedfs: SeaweedFS, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A new bucket that Beam's file systems can write to."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"letters-{abs(hash(request.node.nodeid)) % 10**12}"
    seaweedfs.client().create_bucket(Bucket=name)
    FileSystems.set_options(options(seaweedfs.endpoint))
    yield f"s3://{name}/dead_letters"
    FileSystems.set_options(PipelineOptions([]))


def options(endpoint: str) -> PipelineOptions:
    return PipelineOptions([f"--s3_endpoint_url={endpoint}", "--s3_region_name=us-east-1"])


def keys(seaweedfs: SeaweedFS, prefix: str) -> list[str]:
    return list(seaweedfs.objects(prefix.split("/")[2]))


def test_within_this_process_each_is_an_object_and_all_come_back(seaweedfs: SeaweedFS, prefix: str) -> None:
    with beam.Pipeline(FnApiRunner(), options=options(seaweedfs.endpoint)) as pipeline:
        kept = pipeline | beam.Create(LETTERS) | WriteDeadLetters(prefix)
        assert_that(kept | beam.Map(lambda letter: letter.cause), equal_to([one.cause for one in LETTERS]))
    assert len(keys(seaweedfs, prefix)) == 4
    assert all(key.startswith("dead_letters/dt=2026-03-0") for key in keys(seaweedfs, prefix))
    assert list(read_dead_letters(prefix)) == LETTERS


def test_one_that_cannot_be_written_fails_its_bundle(seaweedfs: SeaweedFS, prefix: str) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    pipeline = beam.Pipeline(FnApiRunner(), options=options(nobody))
    pipeline | beam.Create(LETTERS[:1]) | WriteDeadLetters(prefix)
    with pytest.raises((DeadLetterError, RuntimeError), match="dead letters cannot be written to s3://"):
        pipeline.run()


def test_a_batch_is_one_object_however_often_it_is_written(seaweedfs: SeaweedFS, prefix: str) -> None:
    writer = LetterObjects(prefix).open()
    batch = Batch([_as_event(letter) for letter in LETTERS[:2]], partition="dt=2026-03-01")
    for _ in range(2):
        assert writer.write(batch) is None
    assert keys(seaweedfs, prefix) == [f"dead_letters/dt=2026-03-01/115959-{batch.id}.ndjson"]
    assert list(read_dead_letters(prefix)) == LETTERS[:2]


def test_a_worker_that_beam_gave_no_options_goes_by_its_environment(
    seaweedfs: SeaweedFS, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So are those of a worker pool without containers; "Must provide one of client or options" says Beam."""
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    monkeypatch.setattr(RuntimeValueProvider, "runtime_options", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs.endpoint)
    batch = Batch([_as_event(letter) for letter in LETTERS[:2]], partition="dt=2026-03-01")
    assert LetterObjects(prefix).open().write(batch) is None
    monkeypatch.setattr(FileSystems, "_pipeline_options", None)
    assert list(read_dead_letters(prefix)) == LETTERS[:2]


def test_what_the_store_refuses_is_later_and_says_what_to_do(prefix: str) -> None:
    FileSystems.set_options(options(f"http://127.0.0.1:{free_port()}"))
    batch = Batch([_as_event(letter) for letter in LETTERS[:2]], partition="dt=2026-03-01")
    outcome = LetterObjects(prefix).open().write(batch)
    assert outcome is not None
    assert list(outcome.later) == [0, 1]
    assert f"dead letters cannot be written to {prefix}" in outcome.cause
    assert "--dead_letters" in outcome.cause
