"""Cloud Storage: complete objects or none, each batch once, and plain words for refusals."""

from __future__ import annotations

import gzip
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import zstandard

from pipelines.practice import gcs
from pipelines.practice.gcs import NOT_MET, PracticeGCS, error, parts_of
from pipelines.practice.http_server import Request
from tests.servers.process import free_port
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later
from transforms.archive.choice import Archive
from transforms.archive.objects import GoogleObjects
from transforms.event import Batch
from transforms.setting import BadSettings
from transforms.write.archive import Layout
from transforms.write.gcs.destination import GCS
from transforms.write.gcs.reply import outcome_of
from transforms.write.over_http.reply import Reply

HOUR = "dt=2026-03-01/hour=12"
KMS = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"


@pytest.fixture
def service() -> Iterator[PracticeGCS]:
    with PracticeGCS() as running:
        yield running


@pytest.fixture
def settings(service: PracticeGCS) -> GCS:
    return GCS(service.bucket, endpoint=service.url)


def test_a_batch_is_one_gzipped_object_in_hive_layout(service: PracticeGCS, settings: GCS) -> None:
    made = batch(3, HOUR)
    assert settings.open().write(made) is None
    ((name, stored),) = service.objects.items()
    assert name == f"grantex-events/{HOUR}/{made.events[0].id}-{made.id}.ndjson.gz"
    assert gzip.decompress(stored.data) == b"".join(one.raw + b"\n" for one in made.events)
    assert stored.about["contentType"] == "application/gzip"
    assert "contentEncoding" not in stored.about, "it would be unpacked for some readers under the same name"
    assert made.place == f"gs://{service.bucket}/{name}"


def test_class_key_and_compression(service: PracticeGCS, settings: GCS) -> None:
    special = replace(settings, compression="zstd", prefix="", storage_class="NEARLINE", kms_key=KMS)
    made = batch(700, HOUR)
    assert special.open().write(made) is None
    ((name, stored),) = service.objects.items()
    assert name.startswith("dt=")
    assert name.endswith(".ndjson.zst")
    assert (stored.about["storageClass"], stored.about["kmsKeyName"]) == ("NEARLINE", KMS)
    plain = zstandard.ZstdDecompressor().decompressobj().decompress(stored.data)
    assert plain == b"".join(one.raw + b"\n" for one in made.events)


@pytest.mark.parametrize("layout", ["hive", "flat"])
def test_a_second_attempt_finds_the_first_and_stores_nothing_twice(
    service: PracticeGCS, settings: GCS, layout: Layout
) -> None:
    settings = replace(settings, layout=layout)
    made = batch(3, HOUR if layout == "hive" else "")
    assert settings.open().write(made) is None
    before = dict(service.objects)
    again = Batch(made.events, partition=made.partition, memo=made.memo)
    assert replace(settings, compression="none", prefix="elsewhere").open().write(again) is None
    assert settings.open().write(batch(3, made.partition)) is None, "the same events by anybody else"
    assert service.objects == before


def test_the_name_is_remembered_before_the_object_exists(service: PracticeGCS, settings: GCS) -> None:
    made = batch(2, HOUR)
    seen: list[object] = []
    made.on_remember = lambda _, memo: seen.append((memo, dict(service.objects)))
    assert settings.open().write(made) is None
    assert seen == [(next(iter(service.objects)).encode(), {})]


def test_of_many_that_put_the_same_batch_at_once_one_wins_and_all_have_delivered(
    service: PracticeGCS, settings: GCS
) -> None:
    outcomes: list[object] = []

    def put() -> None:
        writer = settings.open()
        outcomes.append(writer.write(batch(50, HOUR)))
        writer.close()

    threads = [threading.Thread(target=put) for _ in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert outcomes == [None] * 16
    assert len(service.objects) == 1


def test_what_it_wrote_is_read_back_by_the_archive(service: PracticeGCS, settings: GCS) -> None:
    made = batch(200, HOUR)
    assert settings.open().write(made) is None
    archive = Archive(GoogleObjects(service.bucket, "grantex-events", service.url))
    (shard,) = archive.shards()
    found = [one for _, events in archive.read(shard, Counter()) for one in events]
    assert found == made.events


# Refusals


def reply(status: int, body: bytes) -> Reply:
    return Reply(status, {"content-type": "application/json"}, body)


def said(status: int, message: str, reason: str = "") -> Reply:
    answer = error(status, message)
    body = json.loads(answer.body)
    if reason:
        body["error"]["errors"][0]["reason"] = reason
    return reply(status, json.dumps(body).encode())


def outcome(answer: Reply) -> Any:
    return outcome_of(answer, "archive", "key", 3, "it", 0.0)


def test_an_object_that_is_there_is_delivered_but_a_policy_says_the_same_by_another_reason() -> None:
    assert outcome(said(412, NOT_MET)) is None
    policy = "'eu' violates constraint 'constraints/gcp.resourceLocations': precondition"
    refused = all_later(outcome(said(412, policy)), 3)
    assert refused.blocked
    assert "policies" in refused.cause
    assert all_later(outcome(reply(412, b"")), 3), "nobody's words deliver nothing"
    assert all_later(outcome(reply(412, b"<html>pre-condition conditionNotMet")), 3)


@pytest.mark.parametrize(
    ("body", "delivers"),
    [
        ({"kind": "storage#object", "bucket": "archive", "name": "key", "generation": "1"}, True),
        ({"kind": "storage#object", "bucket": "archive", "name": "other", "generation": "1"}, False),
        ({"kind": "storage#object", "bucket": "other", "name": "key", "generation": "1"}, False),
        ({"kind": "storage#object", "bucket": "archive", "name": "key"}, False),
        ({"kind": "storage#bucket", "bucket": "archive", "name": "key", "generation": "1"}, False),
        ({}, False),
        ([1], False),
    ],
)
def test_a_success_delivers_only_in_the_words_of_the_service(body: object, delivers: bool) -> None:
    found = outcome(reply(200, json.dumps(body).encode()))
    if delivers:
        assert found is None
    else:
        assert all_later(found, 3).unknown


@pytest.mark.parametrize(
    ("answer", "blocked", "words"),
    [
        (said(401, "Invalid Credentials"), True, "valid"),
        (said(403, "the caller does not have storage.objects.create access"), True, "objectCreator"),
        (said(403, "slow down", "rateLimitExceeded"), False, "rateLimitExceeded"),
        (said(404, "The specified bucket does not exist."), True, "--gcs_bucket"),
        (said(403, "Permission denied on Cloud KMS key."), True, "--gcs_kms_key"),
        (said(400, 'Provided CRC32C "x" doesn\'t match calculated CRC32C "y".'), False, "other bytes"),
        (said(429, "rate"), False, "429"),
        (said(503, "backend"), False, "503"),
        (reply(403, b"<html><title>Sign in"), True, "Sign in"),
        (reply(302, b""), True, "redirects"),
    ],
)
def test_what_a_refusal_means(answer: Reply, blocked: bool, words: str) -> None:
    found = all_later(outcome(answer), 3)
    assert found.blocked is blocked
    assert words in found.cause


def test_nobody_answers(settings: GCS) -> None:
    away = replace(settings, endpoint=f"http://127.0.0.1:{free_port()}")
    assert "cannot be reached" in all_later(away.open().write(batch(3, HOUR)), 3).cause


def whole(request: Request) -> tuple[dict[str, Any], bytes]:
    found = parts_of(request)
    assert found is not None
    return found


def test_damage_on_the_way_is_found_and_sent_again(
    service: PracticeGCS, settings: GCS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gcs, "parts_of", lambda request: (whole(request)[0], b"x" + whole(request)[1]))
    assert "got other bytes" in all_later(settings.open().write(batch(3, HOUR)), 3).cause
    assert service.objects == {}


# Preflight and settings


def test_preflight_asks_for_the_right_and_needs_none(service: PracticeGCS, settings: GCS) -> None:
    assert [(one.passed, one.cause) for one in settings.preflight()] == [(True, "")]
    service.rights.clear()
    (found,) = settings.preflight()
    assert found.passed is False
    assert "roles/storage.objectCreator" in found.cause
    (found,) = replace(settings, bucket="nowhere").preflight()
    assert found.passed is False
    assert "create the bucket" in found.cause
    service.answer(200, b"<html><title>Welcome</title>")
    (found,) = settings.preflight()
    assert found.passed is False
    assert service.objects == {}


def test_settings_are_pickled_and_refuse_what_would_be_shown() -> None:
    settings = GCS("archive")
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.target() == "gs://archive/grantex-events"
    assert settings.exactly_once()
    assert settings.by_content()
    with pytest.raises(BadSettings, match="endpoint"):
        GCS("archive", endpoint="https://user:secret@storage.example.com")
