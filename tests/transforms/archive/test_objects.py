"""Archives in buckets, read back from real servers: SeaweedFS, and Google's storage emulator."""

from __future__ import annotations

import gzip
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from google.cloud.storage._bucket_metadata_cache import (  # type: ignore[import-untyped]
    BucketMetadataCache,
)

from tests.servers import gcs
from tests.servers.gcs import GoogleStorage
from tests.servers.process import free_port
from tests.servers.seaweedfs import SeaweedFS
from tests.transforms.write.encodings import batch
from transforms.archive import objects
from transforms.archive.choice import Archive
from transforms.archive.objects import GoogleObjects, S3Objects, ranges
from transforms.archive.sources import ArchiveError
from transforms.event import Batch, Event
from transforms.write.archive import Compression
from transforms.write.s3 import writer
from transforms.write.s3.destination import S3
from transforms.write.s3.writer import new_client

HOURS = {f"dt=2026-03-01/hour={hour:02}": batch(700).events for hour in (9, 10)}


@pytest.fixture
def stored(seaweedfs: SeaweedFS, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A bucket that our writer has filled, one hour gzipped and one with zstd, among other things."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    name = f"replay-{abs(hash(request.node.nodeid)) % 10**12}"
    client = seaweedfs.client()
    client.create_bucket(Bucket=name)
    settings = S3(name, "kept", endpoint=seaweedfs.endpoint)
    packings: tuple[Compression, ...] = ("gzip", "zstd")
    for (hour, events), packed in zip(HOURS.items(), packings, strict=True):
        writer = replace(settings, compression=packed).open()
        assert writer.write(Batch(events, partition=hour)) is None
        writer.close()
    for key in ("kept/manifest.json", "kept-elsewhere/dt=2026-03-01/hour=09/x.ndjson"):
        client.put_object(Bucket=name, Key=key, Body=b'{"id":"other"}\n')
    return settings


def read(archive: Archive) -> list[Event]:
    counts: Counter[str] = Counter()
    return [one for shard in archive.shards() for _, events in archive.read(shard, counts) for one in events]


def test_what_our_writer_put_into_s3_comes_back_byte_for_byte(
    stored: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 1000)  # several requests an object
    source = S3Objects(stored)
    assert str(source) == f"s3://{stored.bucket}/kept"
    assert read(Archive(source)) == [event for events in HOURS.values() for event in events]


def test_one_object_is_read_by_its_key(stored: S3) -> None:
    first, _ = S3Objects(stored).shards()
    assert read(Archive(S3Objects(replace(stored, prefix=first.name)))) == HOURS["dt=2026-03-01/hour=09"]


def test_a_bucket_that_cannot_be_read_says_what_it_takes(stored: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
    with pytest.raises(ArchiveError, match=rf"s3://{stored.bucket}/kept at .* cannot be read.*s3:ListBucket"):
        S3Objects(stored).shards()


def test_one_client_reads_all_objects_and_after_a_failure_another_one(
    stored: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []

    def counted(settings: S3, attempts: int) -> Any:
        made.append(settings)
        return new_client(settings, attempts)

    monkeypatch.setattr(writer, "new_client", counted)
    source = S3Objects(stored)
    with monkeypatch.context() as other:
        other.setenv("AWS_ACCESS_KEY_ID", "somebody-else")
        with pytest.raises(ArchiveError):
            source.shards()
    assert read(Archive(source)) == [event for events in HOURS.values() for event in events]
    assert len(made) == 2
    assert pickle.loads(pickle.dumps(source)) == source


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleStorage]:
    with gcs.running(tmp_path_factory.mktemp("gcs") / "log") as server:
        yield server


@pytest.mark.servers
def test_objects_of_google_storage_come_back_byte_for_byte(
    storage: GoogleStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects, "PART", 1000)
    asked = []  # in the background, which takes a right that reading objects does not
    monkeypatch.setattr(BucketMetadataCache, "get_or_queue_fetch", lambda _, bucket: asked.append(bucket))
    storage.create_bucket("archive")
    for hour, events in HOURS.items():
        body = gzip.compress(b"".join(one.raw + b"\n" for one in events))
        storage.put("archive", f"kept/{hour}/x.ndjson.gz", body)
    storage.put("archive", "kept/manifest.json", b"{}")
    storage.put("archive", "kept2/x.ndjson", b'{"id":"other"}\n')
    source = GoogleObjects("archive", "kept", storage.endpoint)
    assert read(Archive(source)) == [event for events in HOURS.values() for event in events]
    assert asked == []


@pytest.mark.servers
def test_a_bucket_of_google_storage_that_is_not_there(storage: GoogleStorage) -> None:
    with pytest.raises(ArchiveError, match=r"gs://nowhere/kept cannot be read: .*Storage Object Viewer"):
        GoogleObjects("nowhere", "kept", storage.endpoint).shards()


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "ATTEMPTS", 1)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with pytest.raises(ArchiveError, match="s3://archive at http"):
        S3Objects(S3("archive", "", endpoint=f"http://127.0.0.1:{free_port()}")).shards()


def test_parts_cover_an_object_without_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PART", 10)
    assert list(ranges(25)) == [(0, 9), (10, 19), (20, 24)]
    assert list(ranges(0)) == []
