"""S3 against a real server: complete objects or none, each batch once, and plain words for refusals."""

from __future__ import annotations

import gzip
import json
import pickle
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from tests.servers.process import free_port
from tests.servers.seaweedfs import SeaweedFS
from tests.transforms.write.encodings import batch, event
from tests.transforms.write.splunk.server import all_later
from transforms.event import Batch, Event
from transforms.write.archive import Layout, hour_partition
from transforms.write.s3 import writer as s3_client
from transforms.write.s3.destination import S3

HOUR = "dt=2026-03-01/hour=12"


@pytest.fixture
def bucket(seaweedfs: SeaweedFS, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"archive-{abs(hash(request.node.nodeid)) % 10**12}"
    seaweedfs.client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def settings(seaweedfs: SeaweedFS, bucket: str) -> S3:
    return S3(bucket, endpoint=seaweedfs.endpoint)


def test_a_batch_is_one_gzipped_object_in_hive_layout(seaweedfs: SeaweedFS, settings: S3) -> None:
    made = batch(3, HOUR)
    assert settings.open().write(made) is None
    ((key, body),) = seaweedfs.objects(settings.bucket).items()
    assert key == f"grantex-events/{HOUR}/{made.events[0].id}-{made.id}.ndjson.gz"
    assert gzip.decompress(body) == b"".join(one.raw + b"\n" for one in made.events)
    head = seaweedfs.client().head_object(Bucket=settings.bucket, Key=key, ChecksumMode="ENABLED")
    assert head["ContentType"] == "application/x-ndjson"
    assert head["ContentEncoding"] == "gzip"
    assert head["ChecksumCRC32"]


def test_the_key_is_remembered_before_the_object_exists(seaweedfs: SeaweedFS, settings: S3) -> None:
    made = batch(2, HOUR)
    seen: list[object] = []
    made.on_remember = lambda _, memo: seen.append((memo, seaweedfs.objects(settings.bucket)))
    assert settings.open().write(made) is None
    (key,) = seaweedfs.objects(settings.bucket)
    assert seen == [(key.encode(), {})]


def test_zstd_and_none(seaweedfs: SeaweedFS, settings: S3) -> None:
    made = batch(700, HOUR)
    expected = b"".join(one.raw + b"\n" for one in made.events)
    assert replace(settings, compression="zstd", prefix="z").open().write(made) is None
    assert replace(settings, compression="none", prefix="").open().write(batch(700, HOUR)) is None
    stored = seaweedfs.objects(settings.bucket)
    assert {key.rpartition("-")[2][32:] for key in stored} == {".ndjson.zst", ".ndjson"}
    bodies = {key[:2]: body for key, body in stored.items()}
    assert zstandard.ZstdDecompressor().decompressobj().decompress(bodies["z/"]) == expected
    assert bodies["dt"] == expected


def test_a_second_attempt_finds_the_first_and_stores_nothing_twice(
    seaweedfs: SeaweedFS, settings: S3
) -> None:
    made = batch(3, HOUR)
    assert settings.open().write(made) is None
    before = seaweedfs.objects(settings.bucket)
    again = Batch(made.events, partition=HOUR, memo=made.memo)
    changed = replace(settings, compression="none", prefix="elsewhere")
    assert changed.open().write(again) is None
    assert seaweedfs.objects(settings.bucket) == before


def test_an_object_in_the_way_is_never_replaced(seaweedfs: SeaweedFS, settings: S3) -> None:
    made = batch(1, HOUR)
    made.memo = f"grantex-events/{HOUR}/a-b.ndjson".encode()
    seaweedfs.client().put_object(Bucket=settings.bucket, Key=made.memo.decode(), Body=b"first")
    assert settings.open().write(made) is None
    assert seaweedfs.objects(settings.bucket) == {made.memo.decode(): b"first"}


@pytest.mark.parametrize("memo", [b"", b"\xff", b"../../x", b"some/other/key"])
def test_a_damaged_memo_names_no_object(seaweedfs: SeaweedFS, settings: S3, memo: bytes) -> None:
    made = batch(1, HOUR)
    made.memo = memo
    assert settings.open().write(made) is None
    (key,) = seaweedfs.objects(settings.bucket)
    assert key.endswith(f"{made.id}.ndjson.gz")


def test_partitions_are_hours_of_created_at(settings: S3) -> None:
    assert settings.partition(event(1)) == HOUR
    assert settings.partition(event(1, "never")) == hour_partition(Event("", "", "", b""))


def test_the_flat_layout_has_one_object_for_all_hours(seaweedfs: SeaweedFS, settings: S3) -> None:
    flat = replace(settings, layout="flat", compression="none")
    events = [event(1), event(2, "2026-03-01T13:00:00Z")]
    assert {flat.partition(one) for one in events} == {""}
    made, odd = Batch(events), Batch([event(3, "never")])
    for each in (made, Batch(events, memo=made.memo), odd):
        assert flat.open().write(each) is None
    assert seaweedfs.objects(settings.bucket) == {
        f"grantex-events/2026-03-01T12-00-00-123Z-{made.id}.ndjson": b"".join(e.raw + b"\n" for e in events),
        f"grantex-events/{odd.events[0].id}-{odd.id}.ndjson": odd.events[0].raw + b"\n",
    }


def test_a_key_of_the_other_layout_stays_what_it_is(seaweedfs: SeaweedFS, settings: S3) -> None:
    """A batch that was tried before --s3_layout changed is still the same object."""
    both: Sequence[tuple[Layout, Layout]] = (("flat", "hive"), ("hive", "flat"))
    for before, after in both:
        made = batch(2, HOUR if before == "hive" else "")
        assert replace(settings, layout=before).open().write(made) is None
        again = Batch(made.events, partition=made.partition, memo=made.memo)
        assert replace(settings, layout=after).open().write(again) is None
    assert len(seaweedfs.objects(settings.bucket)) == 2


def test_storage_class_is_asked_for(seaweedfs: SeaweedFS, settings: S3) -> None:
    assert replace(settings, storage_class="STANDARD_IA").open().write(batch(1, HOUR)) is None
    (found,) = seaweedfs.client().list_objects_v2(Bucket=settings.bucket)["Contents"]
    head = seaweedfs.client().head_object(Bucket=settings.bucket, Key=found["Key"])
    assert head.get("StorageClass", found["StorageClass"]) == "STANDARD_IA"


def test_settings_pickle_and_open_on_the_worker(seaweedfs: SeaweedFS, settings: S3) -> None:
    moved = pickle.loads(pickle.dumps(settings))
    assert moved == settings
    assert moved.open().write(batch(1, HOUR)) is None
    assert len(seaweedfs.objects(settings.bucket)) == 1


# Refusals


def test_an_unknown_access_key_blocks_and_a_mended_one_is_found(
    seaweedfs: SeaweedFS, settings: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    writer = settings.open()
    outcome = all_later(writer.write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "access key does not exist" in outcome.cause
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    assert writer.write(batch(2, HOUR)) is None


def test_a_wrong_secret_key_blocks_and_is_not_shown(settings: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret-key")
    outcome = all_later(settings.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "secret key does not belong" in outcome.cause
    assert "wrong-secret-key" not in outcome.cause


def test_rights_to_read_are_not_enough(
    seaweedfs: SeaweedFS, settings: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.reader_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    outcome = all_later(settings.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "s3:PutObject" in outcome.cause


def test_no_credentials_at_all_block(settings: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    outcome = all_later(settings.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "no usable credentials" in outcome.cause


def test_an_unknown_profile_blocks(settings: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobodys")
    outcome = all_later(settings.open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert "nobodys" in outcome.cause


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AWS_ENDPOINT_URL", "nowhere"), ("AWS_ENDPOINT_URL_S3", "http://a:b"), ("AWS_DEFAULT_REGION", "a b")],
)
def test_what_the_environment_says_and_nobody_can_use_blocks(
    settings: S3, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    outcome = all_later(replace(settings, endpoint=None, region="").open().write(batch(2, HOUR)), 2)
    assert outcome.blocked
    assert not outcome.unknown
    assert value in outcome.cause


# The way there


def test_nobody_listening_is_later_and_surely_not_sent(settings: S3) -> None:
    away = replace(settings, endpoint=f"http://127.0.0.1:{free_port()}")
    outcome = all_later(away.open().write(batch(2, HOUR)), 2)
    assert not outcome.unknown
    assert not outcome.blocked


def test_silence_is_later_and_unknown(settings: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "READ_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = replace(settings, endpoint=f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert all_later(away.open().write(batch(2, HOUR)), 2).unknown


def test_lines_hold_every_event_also_with_line_ends_inside(seaweedfs: SeaweedFS, settings: S3) -> None:
    events = [Event(f"e{n}", "t", "", json.dumps({"id": f"e{n}"}, indent=1).encode()) for n in range(3)]
    assert settings.open().write(Batch(events, partition=HOUR)) is None
    (body,) = seaweedfs.objects(settings.bucket).values()
    assert [json.loads(line)["id"] for line in gzip.decompress(body).splitlines()] == ["e0", "e1", "e2"]
