"""The demo's practice services: what they add to the settings, and that their faults end with the job."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.flags.destinations import destinations
from pipelines.flags.settings import PARAMETERS, parse
from pipelines.local import demo as practised
from pipelines.local.demo import practice
from pipelines.practice import s3
from pipelines.practice.splunk import PracticeSplunk


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_everything_a_run_needs_is_on_this_machine(tmp_path: Path, stop: threading.Event) -> None:
    with practice(parse(["--demo=true", f"--files_dir={tmp_path}"], {}), stop) as settings:
        on = destinations(settings)
        assert [each.name for each in on] == ["bigquery", "s3", "datadog", "splunk", "kafka", "files"]
        urls = [settings[name] for name, each in PARAMETERS.items() if each.placeholder == "URL"]
        urls = [url for url in urls if url]  # the feed's and, but for Kafka, the destinations'
        assert len(urls) == 6
        assert all(url.startswith("http://127.0.0.1:") for url in urls)
        assert settings["kafka_bootstrap_servers"].startswith("127.0.0.1:")
        assert settings["files_dir"] == str(tmp_path)
        assert settings["files_max_age"] == settings["s3_max_age"] == 5.0
        assert settings.state_dir.is_dir()
    assert not settings.state_dir.exists()


def test_what_a_person_gives_is_taken(stop: threading.Event) -> None:
    argv = ["--demo=true", "--files_max_age=60", "--s3_max_age=61", "--kafka_topic=mine"]
    with practice(parse(argv, {}), stop) as settings:
        assert [settings[name] for name in ("files_max_age", "s3_max_age", "kafka_topic")] == [60, 61, "mine"]


def test_nothing_of_a_persons_own_cloud_is_used(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a person's own")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "example.com")
    before = dict(os.environ)
    with practice(parse(["--demo=true"], {}), stop):
        aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        assert aws == {
            "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        assert os.environ["no_proxy"] == "example.com,127.0.0.1"
    assert os.environ == before


def test_another_status_port_is_taken_when_somebody_has_the_usual_one(stop: threading.Event) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        asked = replace(parse(["--demo=true"], {}), status_port=port)
        with practice(asked, stop) as settings:
            assert settings.status_port not in (0, port)
        with practice(replace(asked, given=frozenset({"status_port"})), stop) as settings:
            assert settings.status_port == port, "one that was asked for is not changed behind your back"
        with practice(replace(asked, status_port=0), stop) as settings:
            assert settings.status_port == 0


def test_service_that_fails_now_and_then_works_when_the_job_drains(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    changed = threading.Semaphore(0)

    def busy(server: PracticeSplunk, code: int = 9) -> None:
        told.append(code)
        changed.release()

    monkeypatch.setattr(practised, "WELL_SECONDS", 0.01)
    monkeypatch.setattr(practised, "FAILING_SECONDS", 60.0)
    monkeypatch.setattr(PracticeSplunk, "busy", busy)
    with practice(parse(["--demo=true"], {}), stop):
        assert changed.acquire(timeout=5)
        assert told == [9]
        stop.set()
        assert changed.acquire(timeout=5)
        assert told == [9, 0]
