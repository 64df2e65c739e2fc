"""Retention presets: what AWS's own model says of them, and a service that takes them."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlglot
from botocore.validate import ParamValidator

from pipelines.packs import retention
from pipelines.packs.retention import FRAMEWORKS, Framework
from tests.pipelines.packs.cases import PRINCIPAL, Cases
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.moto import Moto, client, no_questions
from transforms.event import Batch
from transforms.write.bigquery.destination import BigQuery

PACK = Path(__file__).parents[3] / "templates" / "packs" / "retention"
S3 = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
LOCKED = [one for one in FRAMEWORKS if one.least and not one.erasable]


def body(framework: Framework, name: str) -> Any:
    return json.loads((PACK / framework.name / f"{name}.json").read_text())


def faults(operation: str, parameters: dict[str, Any]) -> str:
    """What AWS's model of this call finds wrong."""
    shape = S3.meta.service_model.operation_model(operation).input_shape
    return str(ParamValidator().validate(parameters, shape).generate_report())


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_aws_knows_every_part_of_the_lifecycle(framework: Framework) -> None:
    given = {"Bucket": "b", "LifecycleConfiguration": body(framework, "s3_lifecycle")}
    assert faults("PutBucketLifecycleConfiguration", given) == ""
    given["LifecycleConfiguration"]["Rules"][0]["Transitons"] = []
    assert "Transitons" in faults("PutBucketLifecycleConfiguration", given)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_an_archive_is_kept_as_long_as_is_advised_and_longer_than_it_must(framework: Framework) -> None:
    (rule, markers) = body(framework, "s3_lifecycle")["Rules"]
    assert rule["Expiration"]["Days"] >= framework.advised * 365.25 >= framework.least * 365.25
    assert [one["Days"] for one in rule["Transitions"]] == [30, 90, 365]
    assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": 1}, (
        "else Object Lock's versions stay for ever"
    )
    assert markers["Expiration"] == {"ExpiredObjectDeleteMarker": True}
    gcs = body(framework, "gcs_lifecycle")["lifecycle"]["rule"]
    assert gcs[-1]["action"] == {"type": "Delete"}
    assert gcs[-1]["condition"]["age"] == rule["Expiration"]["Days"]
    assert [one["action"].get("storageClass") for one in gcs[:-1]] == ["NEARLINE", "COLDLINE", "ARCHIVE"]


def test_seven_years_have_leap_days() -> None:
    assert retention.days(7) == 2557
    assert retention.days(4) == 4 * 365 + 1


def test_what_must_be_erasable_is_not_locked() -> None:
    assert [one.name for one in FRAMEWORKS if one.erasable] == ["gdpr"]
    assert not (PACK / "gdpr" / "s3_object_lock.json").exists()


@pytest.mark.parametrize("framework", LOCKED, ids=lambda one: one.name)
def test_aws_knows_every_part_of_the_lock(framework: Framework) -> None:
    given = {"Bucket": "b", "ObjectLockConfiguration": body(framework, "s3_object_lock")}
    assert faults("PutObjectLockConfiguration", given) == ""
    assert given["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]["Years"] == framework.least


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_bigquerys_script_is_whole_sql(framework: Framework) -> None:
    text = (PACK / framework.name / "bigquery.sql").read_text()
    procedure = ["create", "endstatement"] if framework.erasable else []
    parsed = [one.key for one in sqlglot.parse(text, read="bigquery") if one is not None]
    assert parsed == ["alter", *procedure]
    assert f"partition_expiration_days = {retention.days(framework.advised)}" in text.split(";")[0]
    head, _, _ = text.partition("\nBEGIN\n")
    for line in head.splitlines():  # what a comment says must not become a part of a statement
        assert not line or line.startswith(("-- ", "ALTER TABLE ", "CREATE OR REPLACE PROCEDURE ")), line


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda one: one.name)
def test_a_bucket_takes_it(moto_server: Moto, framework: Framework) -> None:
    bucket = f"kept-{framework.name.replace('_', '-')}"
    with no_questions(moto_server.url):
        s3 = client(moto_server.url, "s3")
        s3.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=framework in LOCKED)
        lifecycle = body(framework, "s3_lifecycle")
        s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=lifecycle)
        shown = s3.get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
        assert [(one["ID"], one["Expiration"]) for one in shown] == [
            (one["ID"], one["Expiration"]) for one in lifecycle["Rules"]
        ]
        if framework in LOCKED:
            lock = body(framework, "s3_object_lock")
            s3.put_object_lock_configuration(Bucket=bucket, ObjectLockConfiguration=lock)
            got = s3.get_object_lock_configuration(Bucket=bucket)["ObjectLockConfiguration"]
            assert got["Rule"]["DefaultRetention"].items() >= lock["Rule"]["DefaultRetention"].items()


def test_erasing_a_person_takes_their_grants_events_and_nobody_elses(emulator: Emulator) -> None:
    """The procedure's own statement: bqemulator knows no procedures."""
    table = f"{PROJECT}.events.erased"
    cases = Cases(time.time(), arrays=True)
    settings = BigQuery(table, endpoint=emulator.rest, storage_endpoint=emulator.storage)
    writer = settings.open()
    assert writer.write(Batch(cases.events())) is None
    writer.close()
    before = Counter(emulator.ids("events.erased"))
    erase = (PACK / "gdpr" / "bigquery.sql").read_text().replace("PROJECT.DATASET.events", table)
    statement = erase[erase.index("DELETE FROM") : erase.index(";\nEND")]
    for person in (PRINCIPAL, "a@b.c"):
        emulator.query(re.sub(r"\bperson\b", f"'{person}'", statement))
    gone = before - Counter(emulator.ids("events.erased"))
    mine = [one for one in cases.events() if b"g_audit" in one.raw or b"a@b.c" in one.raw]
    assert gone == Counter(one.id for one in mine)
    assert len(mine) == 5
