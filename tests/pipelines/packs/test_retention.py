"""Retention presets: what AWS's own model says of them, and a service that takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import boto3
import pytest
import sqlglot
from botocore.validate import ParamValidator

from pipelines.packs import retention
from pipelines.packs.retention import FRAMEWORKS, Framework

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
def test_bigquerys_statement_parses(framework: Framework) -> None:
    text = (PACK / framework.name / "bigquery.sql").read_text()
    statement = text.split(";")[0]
    assert sqlglot.parse_one(statement, read="bigquery").key == "alter"
    assert f"partition_expiration_days = {retention.days(framework.advised)}" in statement
