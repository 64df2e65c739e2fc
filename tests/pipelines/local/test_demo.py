"""The demo's practice services: what they add to the settings, and that their faults end with the job."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.local import demo
from pipelines.local.demo import practice
from pipelines.local.practice.splunk import PracticeSplunk
from pipelines.settings import parse


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_everything_a_run_needs_is_on_this_machine(tmp_path: Path, stop: threading.Event) -> None:
    with practice(parse(["--demo=true", f"--files_dir={tmp_path}"], {}), stop) as settings:
        assert settings.feed_url.startswith("http://127.0.0.1:")
        assert settings.splunk_hec_url.startswith("http://127.0.0.1:")
        assert settings.files_dir == tmp_path
        assert settings.files_max_age == 5.0
        assert settings.state_dir.is_dir()
    assert not settings.state_dir.exists()


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

    monkeypatch.setattr(demo, "WELL_SECONDS", 0.01)
    monkeypatch.setattr(demo, "FAILING_SECONDS", 60.0)
    monkeypatch.setattr(PracticeSplunk, "busy", busy)
    with practice(parse(["--demo=true"], {}), stop):
        assert changed.acquire(timeout=5)
        assert told == [9]
        stop.set()
        assert changed.acquire(timeout=5)
        assert told == [9, 0]
