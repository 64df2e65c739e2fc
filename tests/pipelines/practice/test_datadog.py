"""The practice Datadog itself: the intake's answers and limits, and the program of its own."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import zstandard

from pipelines.practice.datadog import PracticeDatadog

NOW = 1_772_366_400.0


@pytest.fixture
def datadog() -> Iterator[PracticeDatadog]:
    with PracticeDatadog(now=lambda: NOW) as server:
        yield server


def post(server: PracticeDatadog, body: bytes, path: str = "/api/v2/logs", **headers: str) -> httpx.Response:
    sent = {"DD-API-KEY": server.key, **{name.replace("_", "-"): value for name, value in headers.items()}}
    with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
        return client.post(server.url + path, content=body, headers=sent)


def logs(*ids: str, **more: object) -> bytes:
    return json.dumps([{"message": "m", "id": one, **more} for one in ids]).encode()


def test_202_takes_an_array(datadog: PracticeDatadog) -> None:
    answer = post(datadog, logs("a", "b", "a"))
    assert (answer.status_code, answer.json()) == (202, {})
    assert datadog.ids == ["a", "b", "a"]
    assert datadog.repeats == 1
    assert datadog.events[0].message == "m"


def test_202_takes_one_object(datadog: PracticeDatadog) -> None:
    assert post(datadog, b' {"message":"m","id":"a"}').status_code == 202
    assert datadog.ids == ["a"]


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("zstd", zstandard.compress)]
)
def test_compressed_requests_are_read(datadog: PracticeDatadog, encoding: str, pack: object) -> None:
    assert callable(pack)
    assert post(datadog, pack(logs("a")), Content_Encoding=encoding).status_code == 202
    assert post(datadog, b"not packed", Content_Encoding=encoding).status_code == 400
    assert datadog.ids == ["a"]


@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b'"text"', b'[{"message": 1}]', b"[{}", b"[{},]"])
def test_400_for_what_is_no_log(datadog: PracticeDatadog, body: bytes) -> None:
    answer = post(datadog, body)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["title"] == "Bad Request"
    assert datadog.count == 0


def test_401_without_a_key_and_403_with_a_wrong_one(datadog: PracticeDatadog) -> None:
    assert post(datadog, logs("a"), DD_API_KEY="").status_code == 401
    assert post(datadog, logs("a"), DD_API_KEY="wrong").status_code == 403
    datadog.rotate("other")
    assert post(datadog, logs("a"), DD_API_KEY="other").status_code == 202
    assert datadog.ids == ["a"]


def test_413_above_5_mb_uncompressed(datadog: PracticeDatadog) -> None:
    body = b"[" + b" " * 4_999_998 + b"]"
    assert post(datadog, gzip.compress(body, 1), Content_Encoding="gzip").status_code == 202
    assert post(datadog, gzip.compress(body + b" ", 1), Content_Encoding="gzip").status_code == 413


def test_413_above_1000_logs(datadog: PracticeDatadog) -> None:
    assert post(datadog, logs(*["a"] * 1000)).status_code == 202
    assert post(datadog, logs(*["a"] * 1001)).status_code == 413
    assert datadog.count == 1000


def test_202_for_a_log_above_1_mb_which_is_cut(datadog: PracticeDatadog) -> None:
    assert post(datadog, json.dumps([{"id": "a", "message": "x" * 1_100_000}]).encode()).status_code == 202
    assert datadog.cut == 1
    assert len(datadog.events[0].message) < 1_000_000


def test_202_for_a_log_older_than_18_hours_which_is_dropped(datadog: PracticeDatadog) -> None:
    milliseconds = int((NOW - 18 * 3600) * 1000)
    assert post(datadog, logs("old", timestamp=milliseconds - 1)).status_code == 202
    assert post(datadog, logs("good", timestamp=milliseconds)).status_code == 202
    assert datadog.ids == ["good"]
    assert datadog.dropped == 1


def test_202_for_a_log_more_than_2_hours_ahead_which_is_dropped(datadog: PracticeDatadog) -> None:
    milliseconds = int((NOW + 2 * 3600) * 1000)
    assert post(datadog, logs("ahead", timestamp=milliseconds + 1)).status_code == 202
    assert post(datadog, logs("good", timestamp=milliseconds)).status_code == 202
    assert datadog.ids == ["good"]


def test_a_log_of_exactly_1_mb_is_whole(datadog: PracticeDatadog) -> None:
    empty = len(json.dumps([{"id": "a", "message": ""}])) - 2
    for over, cut in ((0, 0), (1, 1)):
        body = json.dumps([{"id": "a", "message": "x" * (1_000_000 - empty + over)}]).encode()
        assert post(datadog, body).status_code == 202
        assert datadog.cut == cut


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_408_429_and_5xx_on_command_take_nothing(datadog: PracticeDatadog, status: int) -> None:
    datadog.answer(status, headers={"Retry-After": "7"})
    answer = post(datadog, logs("a"))
    assert (answer.status_code, answer.headers["retry-after"], datadog.count) == (status, "7", 0)
    assert post(datadog, logs("a")).status_code == 202
    assert datadog.ids == ["a"]


def test_404_elsewhere(datadog: PracticeDatadog) -> None:
    assert post(datadog, logs("a"), "/v1/input").status_code == 404


@pytest.mark.slow
def test_as_a_program_it_appends_ids_and_ends_on_sigterm(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    command = [sys.executable, "-m", "pipelines.practice.datadog", "--key", "k", "--ids", str(ids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
            answer = client.post(f"{url}/api/v2/logs", content=logs("a", "b"), headers={"DD-API-KEY": "k"})
        assert answer.status_code == 202
        assert ids.read_text() == "a\nb\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
