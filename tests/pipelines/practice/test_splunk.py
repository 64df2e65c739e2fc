"""The practice Splunk itself: every reply code, faults on command, and the program of its own."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipelines.practice.hec import CODES
from pipelines.practice.splunk import PracticeSplunk

GOOD = {"event": {"id": "a"}, "time": 1772366400.123, "index": "main", "fields": {"event_id": "a"}}


@pytest.fixture
def splunk() -> Iterator[PracticeSplunk]:
    with PracticeSplunk() as server:
        yield server


def post(server: PracticeSplunk, body: bytes, **headers: str) -> httpx.Response:
    sent = {"Authorization": f"Splunk {server.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
    with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
        return client.post(server.url + "/services/collector/event", content=body, headers=sent)


def good(event_id: str) -> dict[str, Any]:
    return {**GOOD, "fields": {"event_id": event_id}}


def joined(*objects: object, by: str = "\n") -> bytes:
    return by.join(json.dumps(one) for one in objects).encode()


def said(response: httpx.Response) -> tuple[int, int, int | None]:
    body = response.json()
    return response.status_code, body["code"], body.get("invalid-event-number")


def test_code_0_indexes_what_is_sent_in_order(splunk: PracticeSplunk) -> None:
    assert said(post(splunk, joined(good("a"), good("b"), good("a")))) == (200, 0, None)
    assert splunk.ids == ["a", "b", "a"]
    assert splunk.count == 3
    assert splunk.repeats == 1
    assert splunk.events[0].time == 1772366400.123
    assert json.loads(bytes(splunk.events[0].event)) == {"id": "a"}


@pytest.mark.parametrize("separator", ["", " ", "\n", "\r\n\r\n"])
def test_objects_may_stand_one_behind_the_other(splunk: PracticeSplunk, separator: str) -> None:
    assert said(post(splunk, joined(good("a"), good("b"), by=separator))) == (200, 0, None)
    assert splunk.ids == ["a", "b"]


def test_gzip_is_accepted_and_deflate_is_not(splunk: PracticeSplunk) -> None:
    body = joined(good("a"))
    assert said(post(splunk, gzip.compress(body), Content_Encoding="gzip")) == (200, 0, None)
    assert post(splunk, zlib.compress(body), Content_Encoding="deflate").status_code == 415
    assert said(post(splunk, b"no gzip", Content_Encoding="gzip")) == (400, 6, None)
    assert splunk.ids == ["a"]


def test_code_1_token_disabled(splunk: PracticeSplunk) -> None:
    splunk.tokens[0].disabled = True
    assert said(post(splunk, joined(GOOD))) == (403, 1, None)


def test_code_2_token_missing(splunk: PracticeSplunk) -> None:
    assert said(post(splunk, joined(GOOD), Authorization="")) == (401, 2, None)


@pytest.mark.parametrize("malformed", ["Bearer practice-hec-token", "practice-hec-token", "Splunk"])
def test_code_3_token_malformed(splunk: PracticeSplunk, malformed: str) -> None:
    assert said(post(splunk, joined(GOOD), Authorization=malformed)) == (401, 3, None)


def test_code_4_token_unknown_after_a_rotation(splunk: PracticeSplunk) -> None:
    old = splunk.token
    splunk.rotate("another-token")
    assert said(post(splunk, joined(GOOD), Authorization=f"Splunk {old}")) == (403, 4, None)
    assert said(post(splunk, joined(GOOD))) == (200, 0, None)


@pytest.mark.parametrize("empty", [b"", b" \r\n "])
def test_code_5_no_data_with_a_good_token_is_the_preflight(splunk: PracticeSplunk, empty: bytes) -> None:
    assert said(post(splunk, empty)) == (400, 5, None)
    assert said(post(splunk, empty, Authorization="Splunk wrong")) == (403, 4, None)


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        (6, b'{"event": '),
        (6, b"not json"),
        (6, b"[1]"),
        (6, b'{"event": "x", "fields": ["a"]}'),
        (6, b'{"event": "x", "time": "noon"}'),
        (12, b'{"time": 1}'),
        (12, b'{"event": null}'),
        (13, b'{"event": ""}'),
        (15, b'{"event": "x", "fields": {"a": {"nested": "b"}}}'),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
def test_codes_6_12_13_15_name_the_bad_object_and_index_what_stands_before_it(
    splunk: PracticeSplunk, code: int, bad: bytes, before: int
) -> None:
    prefix = [good(str(number)) for number in range(before)]
    body = joined(*prefix) + b"\n" + bad + b"\n" + joined(good("behind"))
    assert said(post(splunk, body)) == (400, code, before)
    assert splunk.ids == [str(number) for number in range(before)]


@pytest.mark.parametrize("before", [0, 2])
def test_code_7_reports_a_number_one_too_high(splunk: PracticeSplunk, before: int) -> None:
    prefix = [good(str(number)) for number in range(before)]
    body = joined(*prefix, {**GOOD, "index": "missing"}, good("behind"))
    assert said(post(splunk, body)) == (400, 7, before + 1)
    assert splunk.count == before


def test_code_7_for_an_index_that_exists_and_is_not_allowed_for_the_token(splunk: PracticeSplunk) -> None:
    splunk.indexes.add("other")
    assert said(post(splunk, joined({**GOOD, "index": "other"}))) == (200, 0, None)
    splunk.tokens[0].indexes = ["main"]
    assert said(post(splunk, joined({**GOOD, "index": "other"}))) == (400, 7, 1)


def test_an_event_that_names_no_index_goes_to_the_tokens(splunk: PracticeSplunk) -> None:
    splunk.indexes.add("other")
    splunk.tokens[0].index = "other"
    assert said(post(splunk, b'{"event": "x"}')) == (200, 0, None)
    assert splunk.events[0].index == "other"


def test_fields_may_hold_several_values(splunk: PracticeSplunk) -> None:
    assert said(post(splunk, b'{"event": "x", "fields": {"a": ["b", "c"], "n": 1}}')) == (200, 0, None)


@pytest.mark.parametrize(
    ("code", "status"),
    [(8, 500), (9, 503), (18, 503), (19, 503), (20, 503), (23, 503), (26, 429), (27, 429)],
)
def test_busy_codes_until_it_is_over(splunk: PracticeSplunk, code: int, status: int) -> None:
    splunk.busy(code)
    assert said(post(splunk, joined(GOOD))) == (status, code, None)
    splunk.busy(0)
    assert said(post(splunk, joined(GOOD))) == (200, 0, None)
    assert splunk.count == 1


def test_code_16_for_a_token_in_the_url(splunk: PracticeSplunk) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        url = f"{splunk.url}/services/collector/event?token={splunk.token}"
        assert said(client.post(url, content=joined(GOOD))) == (400, 16, None)


def test_the_token_may_be_a_password(splunk: PracticeSplunk) -> None:
    with httpx.Client(trust_env=False, verify=False, auth=("x", splunk.token)) as client:
        assert said(client.post(f"{splunk.url}/services/collector/event", content=joined(GOOD)))[1] == 0


@pytest.mark.parametrize(("code", "status"), [(code, CODES[code][0]) for code in sorted(CODES)])
def test_each_code_on_command(splunk: PracticeSplunk, code: int, status: int) -> None:
    splunk.answer_code(code)
    assert said(post(splunk, joined(GOOD))) == (status, code, None)
    assert splunk.count == 0
    assert said(post(splunk, joined(GOOD))) == (200, 0, None)


def test_413_above_the_limit_packed_or_not() -> None:
    with PracticeSplunk(max_body=200) as server:
        body = joined(*[good("a")] * 20)
        assert post(server, body).status_code == 413
        assert post(server, gzip.compress(body), Content_Encoding="gzip").status_code == 413
        assert server.count == 0


def test_code_17_health_never_checks_the_token(splunk: PracticeSplunk) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        assert said(client.get(splunk.url + "/services/collector/health")) == (200, 17, None)
        splunk.busy(18)
        assert said(client.get(splunk.url + "/services/collector/health/1.0")) == (503, 18, None)


def test_other_paths_are_404(splunk: PracticeSplunk) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        assert client.get(splunk.url + "/").status_code == 404


def test_a_connection_is_kept_alive(splunk: PracticeSplunk) -> None:
    with httpx.Client(trust_env=False, verify=False) as client:
        for _ in range(3):
            assert client.get(splunk.url + "/services/collector/health").status_code == 200
    assert splunk.connection_count == 1


def test_down_refuses_and_up_serves_on_the_same_port(splunk: PracticeSplunk) -> None:
    url = splunk.url
    splunk.down()
    with pytest.raises(httpx.ConnectError):
        post(splunk, joined(GOOD))
    splunk.up()
    assert splunk.url == url
    assert said(post(splunk, joined(GOOD))) == (200, 0, None)


@pytest.mark.parametrize(("when", "indexed"), [("before", 0), ("during", 0), ("after", 1)])
def test_resets_before_during_and_after_indexing(splunk: PracticeSplunk, when: Any, indexed: int) -> None:
    splunk.reset(when)
    with pytest.raises(httpx.TransportError):
        post(splunk, joined(GOOD))
    assert splunk.count == indexed


def test_answers_on_command_for_so_many_requests(splunk: PracticeSplunk) -> None:
    splunk.answer(503, b"<html>", {"Retry-After": "7"}, times=2)
    for _ in range(2):
        response = post(splunk, joined(GOOD))
        assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert post(splunk, joined(GOOD)).status_code == 200
    assert splunk.count == 1


def test_a_fault_for_one_path_waits_for_it(splunk: PracticeSplunk) -> None:
    splunk.answer(503, path="/event")
    with httpx.Client(trust_env=False, verify=False) as client:
        assert client.get(splunk.url + "/services/collector/health").status_code == 200
    assert post(splunk, joined(GOOD)).status_code == 503
    assert post(splunk, joined(GOOD)).status_code == 200


def test_garbage_is_indexed(splunk: PracticeSplunk) -> None:
    splunk.garbage(b"<html>")
    assert post(splunk, joined(GOOD)).content == b"<html>"
    assert splunk.count == 1


def test_a_cut_answer_is_indexed(splunk: PracticeSplunk) -> None:
    splunk.cut_answer()
    with pytest.raises(httpx.RemoteProtocolError):
        post(splunk, joined(GOOD))
    assert splunk.count == 1


def test_a_hanging_server_answers_when_released(splunk: PracticeSplunk) -> None:
    splunk.hang()
    with httpx.Client(trust_env=False, verify=False, timeout=0.1) as client, pytest.raises(httpx.ReadTimeout):
        client.get(splunk.url + "/services/collector/health")
    splunk.release()
    assert said(post(splunk, joined(GOOD))) == (200, 0, None)


def test_memory_stays_flat_when_nothing_is_kept() -> None:
    with PracticeSplunk(keep_events=False, keep_ids=False) as server:
        post(server, joined(good("a"), good("b")))
        assert (server.count, server.ids, server.events, server.requests) == (2, [], [], [])


@pytest.mark.slow
def test_its_own_process_says_where_it_is_and_records_ids_before_it_answers(tmp_path: Path) -> None:
    ids = tmp_path / "ids"
    command = [sys.executable, "-m", "pipelines.practice.splunk", "--token", "t", "--ids", str(ids)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        with httpx.Client(trust_env=False, verify=False) as client:
            headers = {"Authorization": "Splunk t"}
            body = joined(good("a"), good("b"))
            client.post(url + "/services/collector/event", content=body, headers=headers)
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert ids.read_text() == "a\nb\n"
