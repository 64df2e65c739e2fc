"""From flags to destinations: every one by its first flag, and every setting of it from a flag."""

from __future__ import annotations

import dataclasses

import certifi
import pytest

from pipelines.flags.destinations import KINDS, destinations, group_of
from pipelines.flags.settings import PARAMETERS, BadParameters, parse
from transforms.batch import BatchPolicy
from transforms.secret import EnvSecret
from transforms.way_out import WayOut
from transforms.write.asked import Asked
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination
from transforms.write.datadog.destination import Datadog
from transforms.write.files.destination import Files
from transforms.write.gcs.destination import GCS
from transforms.write.kafka.destination import Kafka
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

ENVIRON = {"KEY": "0123456789abcdef"}
CA = certifi.where()
WAY_OUT = WayOut(ca_file=CA)
POLICY = BatchPolicy(7, 7777, 0.7)
ASKED = Asked(("grant.*", "!grant.revoked"), ("data.a",), EnvSecret("KEY"))
# Flags without the destination's name before them, and what they make.
EVERYTHING: list[tuple[list[str], Destination]] = [
    (
        [
            "table=p-r-o.d.t",
            "method=insert_all",
            "schema=compatible",
            "endpoint=https://rest",
            "storage_endpoint=https://grpc",
        ],
        BigQuery("p-r-o.d.t", "insert_all", "compatible", "https://rest", "https://grpc", WAY_OUT, POLICY),
    ),
    (
        [
            "bucket=archive",
            "prefix=a/b",
            "region=eu-central-1",
            "endpoint=https://minio:9000",
            "compression=zstd",
            "role_arn=arn:aws:iam::123456789012:role/a",
            "external_id=x-42",
            "storage_class=GLACIER_IR",
            "kms_key=alias/k",
            "layout=flat",
        ],
        S3(
            "archive",
            "a/b",
            "flat",
            "eu-central-1",
            "https://minio:9000",
            "zstd",
            "arn:aws:iam::123456789012:role/a",
            "x-42",
            "GLACIER_IR",
            "alias/k",
            WAY_OUT,
            POLICY,
        ),
    ),
    (
        [
            "bucket=my-archive",
            "prefix=a/b",
            "layout=flat",
            "endpoint=https://storage",
            "compression=zstd",
            "storage_class=NEARLINE",
            "kms_key=projects/p/locations/eu/keyRings/r/cryptoKeys/k",
        ],
        GCS(
            "my-archive",
            "a/b",
            "flat",
            "https://storage",
            "zstd",
            "NEARLINE",
            "projects/p/locations/eu/keyRings/r/cryptoKeys/k",
            WAY_OUT,
            POLICY,
        ),
    ),
    (
        ["api_key=env:KEY", "site=datadoghq.eu", "service=s", "tags=env:a,team:b", "source=iam", "host=h"],
        Datadog(
            EnvSecret("KEY"),
            "datadoghq.eu",
            None,
            "s",
            ("env:a", "team:b"),
            "tag",
            "none",
            WAY_OUT,
            POLICY,
            source="iam",
            host="h",
        ),
    ),
    (
        ["api_key=env:KEY", "endpoint=https://proxy", "too_old=dead_letter"],
        Datadog(
            EnvSecret("KEY"),
            endpoint="https://proxy",
            compression="none",
            way_out=WAY_OUT,
            policy=POLICY,
            too_old="dead_letter",
        ),
    ),
    (
        [
            "hec_url=https://splunk:8088",
            "hec_token=env:KEY",
            "index=i",
            "index_by_type=grant.*=g,*=i",
            "source=s",
            "sourcetype=t",
            "host=h",
            "acknowledge=true",
        ],
        Splunk(
            "https://splunk:8088",
            EnvSecret("KEY"),
            index="i",
            index_by_type=("grant.*=g", "*=i"),
            source="s",
            sourcetype="t",
            host="h",
            acknowledge=True,
            compression="none",
            way_out=WAY_OUT,
            policy=POLICY,
        ),
    ),
    (
        ["bootstrap_servers=a:1,b:2", "topic=t", "config=linger.ms=7", "token=google"],
        Kafka("a:1,b:2", "t", {"linger.ms": "7"}, POLICY, way_out=WAY_OUT, token="google"),
    ),
    (
        ["topic=projects/my-project/topics/t-1", "endpoint=https://europe-west1-pubsub.googleapis.com"],
        PubSub(
            "projects/my-project/topics/t-1", "https://europe-west1-pubsub.googleapis.com", WAY_OUT, POLICY
        ),
    ),
    (["dir=./out"], Files("out", policy=POLICY)),
]


def given(name: str, flags: list[str]) -> list[str]:
    ends = [
        *flags,
        "types=grant.*,!grant.revoked",
        "pseudonymize=data.a",
        "max_events=7",
        "max_bytes=7777",
        "max_age=0.7",
    ]
    return ["--feed_api_key=env:KEY", f"--ca_file={CA}", *(f"--{name}_{end}" for end in ends)]


@pytest.mark.parametrize(
    ("flags", "destination"), EVERYTHING, ids=[f"{made.name}-{flags[-1]}" for flags, made in EVERYTHING]
)
def test_every_flag_of_a_destination_arrives_in_it(flags: list[str], destination: Destination) -> None:
    argv = given(destination.name, flags)
    if destination.name in ("datadog", "splunk"):
        argv.append("--http_compression=none")
    argv.append("--pseudonym_key=env:KEY")
    assert destinations(parse(argv, ENVIRON)) == [dataclasses.replace(destination, asked=ASKED)]  # type: ignore[type-var]


def test_every_flag_is_tried_above() -> None:
    tried = {arg.partition("=")[0] for flags, made in EVERYTHING for arg in given(made.name, flags)}
    of_destinations = {kind.name for kind in KINDS}
    flags = {each.flag for each in PARAMETERS.values() if each.group.destination in of_destinations}
    assert flags <= tried


def test_a_destination_is_on_when_its_first_flag_is_given() -> None:
    first = {made.name: flags for flags, made in reversed(EVERYTHING)}
    argv = ["--feed_api_key=env:KEY"]
    for name, flags in first.items():
        argv += [f"--{name}_{flag}" for flag in flags[: 2 if name == "splunk" else 1]]
    found = destinations(parse(argv, ENVIRON))
    assert [each.name for each in found] == [
        "bigquery",
        "s3",
        "gcs",
        "datadog",
        "splunk",
        "kafka",
        "pubsub",
        "files",
    ]
    for each in found:
        kept = {field.name: getattr(each, field.name) for field in dataclasses.fields(each)}  # type: ignore[arg-type]
        default = {f.name: f.default for f in dataclasses.fields(each)}  # type: ignore[arg-type]
        assert kept["policy"] == default["policy"]
    assert parse(argv, ENVIRON)["files_dir"] == "out"


def test_half_of_an_emulator_is_refused_in_the_words_it_was_given_in() -> None:
    argv = ["--feed_api_key=env:KEY", "--bigquery_table=my-project.d.t"]
    half = {**ENVIRON, "GRANTEX_BIGQUERY_ENDPOINT": "http://127.0.0.1:9050"}
    with pytest.raises(BadParameters) as raised:
        parse(argv, half)
    assert raised.value.lines == [
        "GRANTEX_BIGQUERY_ENDPOINT: an emulator needs --bigquery_storage_endpoint, too, or "
        "--bigquery_method=insert_all"
    ]
    parse([*argv, "--bigquery_method=insert_all"], half)
    parse([*argv, "--bigquery_storage_endpoint=http://127.0.0.1:9060"], half)
    # Nothing is said of a destination that is off.
    parse([argv[0], "--kafka_bootstrap_servers=a:1"], {**ENVIRON})


def test_rules_between_fields_wait_for_fields_that_can_be_read() -> None:
    flags = ["--feed_api_key=env:KEY", "--bigquery_table=none", "--bigquery_endpoint=http://127.0.0.1:9050"]
    with pytest.raises(BadParameters) as raised:
        parse(flags, ENVIRON)
    (line,) = raised.value.lines
    assert line.startswith("--bigquery_table: must be project.dataset.table")


def test_a_library_hears_of_the_same_rules_by_the_fields_names() -> None:
    with pytest.raises(
        ValueError, match=r"^endpoint: an emulator needs storage_endpoint, too, or method=insert_all$"
    ):
        BigQuery("my-project.d.t", endpoint="http://127.0.0.1:9050")
    with pytest.raises(ValueError, match=r"^external_id: needs role_arn, the role that asks for it$"):
        S3("archive", external_id="x-42")


def test_every_built_in_destination_has_a_title_and_a_first_setting_that_is_needed() -> None:
    for kind in KINDS:
        assert kind.title
        assert kind.name
        assert PARAMETERS[group_of(kind).first].default is None


def test_whatever_else_a_class_refuses_is_a_line_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(made: Datadog) -> None:
        raise ValueError("not on a Sunday")

    monkeypatch.setattr(Datadog, "__post_init__", refuse)
    with pytest.raises(BadParameters) as raised:
        parse(["--feed_api_key=env:KEY", "--datadog_api_key=env:KEY"], ENVIRON)
    assert raised.value.lines == ["--datadog_api_key: not on a Sunday"]
