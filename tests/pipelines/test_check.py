"""`check` as a person starts it, against the practice services: exit code, table, JSON, YAML, no secret."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import programs, stream
from pipelines.check import main
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.gcs import PracticeGCS
from pipelines.practice.s3 import PracticeS3
from pipelines.practice.splunk import PracticeSplunk
from tests.servers.process import free_port

SECRETS = {"FEED_KEY": "gx-for-nobodys-eyes", "HEC_TOKEN": "hec-for-nobodys-eyes", "DD_KEY": "dd-for-nobody"}


class World:
    """A practice service of each kind that needs no real one, and the flags that name them."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.feed = PracticeFeed({SECRETS["FEED_KEY"]: "dev_1"})
        self.splunk = PracticeSplunk(token=SECRETS["HEC_TOKEN"])
        self.datadog = PracticeDatadog(key=SECRETS["DD_KEY"])
        self.s3, self.gcs = PracticeS3(), PracticeGCS()

    @property
    def flags(self) -> list[str]:
        given = {
            "feed_url": self.feed.url,
            "feed_api_key": "env:FEED_KEY",
            "state_dir": self.place / "state",
            "status_port": free_port(),
            "splunk_hec_url": self.splunk.url,
            "splunk_hec_token": "env:HEC_TOKEN",
            "datadog_endpoint": self.datadog.url,
            "datadog_api_key": "env:DD_KEY",
            "s3_bucket": self.s3.bucket,
            "s3_endpoint": self.s3.url,
            "gcs_bucket": self.gcs.bucket,
            "gcs_endpoint": self.gcs.url,
            "files_dir": self.place / "out",
        }
        return [f"--{name}={value}" for name, value in given.items()]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    aws = {"AWS_ACCESS_KEY_ID": made.s3.access_key, "AWS_SECRET_ACCESS_KEY": made.s3.secret_key}
    for name, value in {**SECRETS, **aws, "AWS_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    with made.feed, made.splunk, made.datadog, made.s3, made.gcs:
        yield made


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(arguments)
    said = capsys.readouterr()
    everything = said.out + said.err
    assert not any(secret in everything for secret in SECRETS.values())
    return code, said.out


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[tuple[str, str], Any]]:
    code, out = asked(capsys, "--json=true", *arguments)
    report = json.loads(out)
    assert report["passed"] is (code == 0)
    return code, {(each["name"], each["what"]): each for each in report["tried"]}


def test_everything_right_exits_with_0_and_says_what_it_leaves(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out = asked(capsys, *world.flags)
    assert code == 0, out
    assert {line.split()[0] for line in out.splitlines()[:-2]} == {"ok"}
    assert "leaves s3://grantex-practice/grantex-events/_check" in out
    assert "leaves gs://grantex-practice/grantex-events/_check" in out
    assert "leaves it there, with source grantex-beam-check" in out
    assert world.feed.streams == []
    assert list(world.s3.objects) == list(world.gcs.objects) == ["grantex-events/_check"]
    assert [(each.source, each.index) for each in world.splunk.events] == [("grantex-beam-check", "main")]
    assert world.datadog.count == 0
    assert [each for each in (world.place / "out").rglob("*") if each.is_file()] == []
    assert not (world.place / "state").exists()
    assert asked(capsys, *world.flags)[0] == 0, "as often as one likes"
    assert len(world.s3.objects) == 1


def test_what_is_wrong_is_told_of_each_and_exits_with_3(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world.splunk.rotate("another")
    world.datadog.rotate("another")
    world.gcs.rights = set()
    world.s3.refuse("NoSuchBucket")
    code, found = told(capsys, *world.flags)
    assert code == 3
    failed = {where: each["do"] for where, each in found.items() if each["result"] == "FAILED"}
    assert failed == {
        ("splunk", "the HEC token"): "enable or correct --splunk_hec_token.",
        ("datadog", "the API key"): "give a valid --datadog_api_key.",
        ("datadog", "the intake"): "give a valid --datadog_api_key.",
        ("s3", "putting an object"): "create it, or correct --s3_bucket.",
        ("gcs", "putting an object"): "grant the service account roles/storage.objectCreator on the bucket.",
    }
    assert found["the feed", "the API key"]["result"] == "ok"


def test_destinations_of_a_file_are_tried_under_their_names(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    config = world.place / "grantex.yaml"
    config.write_text(
        f"feed_url: {world.feed.url}\nfeed_api_key: env:FEED_KEY\nstate_dir: {world.place / 'state'}\n"
        "status_port: 0\ndestinations:\n"
        f"  east: {{kind: splunk, hec_url: '{world.splunk.url}', hec_token: env:HEC_TOKEN}}\n"
        f"  west: {{kind: splunk, hec_url: '{world.splunk.url}', hec_token: env:HEC_TOKEN, index: nowhere}}\n"
    )
    code, found = told(capsys, f"--config={config}")
    assert code == 3
    assert found["east", "an event to index main"]["result"] == "ok"
    wrong = found["west", "an event to index nowhere"]
    assert (wrong["result"], "has no index 'nowhere'" in wrong["cause"]) == ("FAILED", True)
    assert found["west's token", "the secret"]["note"] == "read from env:HEC_TOKEN"


def test_the_key_alone_can_be_tried(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, *world.flags[:4])
    assert code == 0
    assert ("the feed", "the API key") in found


def test_a_websocket_is_tried_where_one_is_wanted(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, *world.flags[:4], "--feed_transport=both")
    assert code == 0
    assert found["its WebSocket", "the upgrade"]["result"] == "ok"


def test_wrong_parameters_exit_with_2_and_connect_to_nobody(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*world.flags, "--splunk_max_events=-1", "--filse_dir=x"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert world.feed.request_count == world.splunk.request_count == 0


def test_it_takes_the_jobs_own_flags_and_is_a_program(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--window_size=60", "--standby=true", "--drain_timeout=5", "--validate_only=true"]
    assert programs.main(["check", *world.flags, *more]) == 0
    assert "tried, " in capsys.readouterr().out


def test_validate_only_of_the_job_is_the_same(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.splunk.indexes = {"another"}
    assert stream.main([*world.flags, "--validate_only=true"]) == 3
    out = capsys.readouterr().out
    assert "has no index 'main'" in out
    to_do = "create the index, allow it for the token, or correct --splunk_index (--splunk_index_by_type)."
    assert f"To do: {to_do}" in out


def test_nothing_is_logged_that_the_table_says(
    world: World, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    world.splunk.rotate("another")
    asked(capsys, *world.flags)
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_help_says_what_it_tries_and_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "What it leaves behind it names: one small object in a bucket" in said
    assert "--splunk_hec_url" in said
