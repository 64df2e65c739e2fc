"""Indexer acknowledgement of the practice Splunk: ids, polls, lost answers, crashes, a load balancer."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pipelines.practice.splunk import PracticeSplunk, Stickiness
from tests.transforms.write.manual_clock import ManualClock

CHANNEL = "FE0ECFAD-13D5-401B-847D-77833BD77131"
OTHER = str(uuid.uuid4())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def splunk(clock: ManualClock) -> Iterator[PracticeSplunk]:
    with PracticeSplunk(ack_seconds=2, monotonic=clock.monotonic) as server:
        yield server


@pytest.fixture
def client(splunk: PracticeSplunk) -> Iterator[httpx.Client]:
    with session(splunk) as opened:
        yield opened


def session(server: PracticeSplunk, channel: str = CHANNEL) -> httpx.Client:
    headers = {"Authorization": f"Splunk {server.token}"}
    if channel:
        headers["X-Splunk-Request-Channel"] = channel
    return httpx.Client(
        base_url=server.url + "/services/collector", headers=headers, trust_env=False, verify=False, timeout=5
    )


def post(client: httpx.Client, *ids: str) -> dict[str, Any]:
    body = "".join(json.dumps({"event": "x", "fields": {"event_id": one}}) for one in ids)
    answer = client.post("/event", content=body).json()
    assert isinstance(answer, dict)
    return answer


def poll(client: httpx.Client, *ids: int) -> Any:
    answer = client.post("/ack", json={"acks": ids})
    return answer.json().get("acks", answer.json().get("code"))


# Ids and polls


def test_ids_count_from_0_in_each_channel(splunk: PracticeSplunk, client: httpx.Client) -> None:
    assert post(client, "a") == {"text": "Success", "code": 0, "ackId": 0}
    assert post(client, "b")["ackId"] == 1
    with session(splunk, OTHER) as other:
        assert post(other, "c")["ackId"] == 0
    assert post(client, "d")["ackId"] == 2
    assert splunk.ids == ["a", "b", "c", "d"]


def test_an_id_is_false_until_its_events_are_indexed(client: httpx.Client, clock: ManualClock) -> None:
    post(client, "a")
    clock.advance(1)
    post(client, "b")
    assert poll(client, 0, 1) == {"0": False, "1": False}
    clock.advance(1)
    assert poll(client, 0, 1) == {"0": True, "1": False}


def test_an_id_that_was_true_is_false_ever_after(client: httpx.Client, clock: ManualClock) -> None:
    post(client, "a")
    clock.advance(2)
    assert poll(client, 0) == {"0": True}
    assert poll(client, 0) == {"0": False}


def test_it_is_false_ever_after_though_the_answer_was_lost(
    splunk: PracticeSplunk, client: httpx.Client, clock: ManualClock
) -> None:
    post(client, "a")
    clock.advance(2)
    splunk.reset("after", path="/ack")
    with pytest.raises(httpx.TransportError):
        poll(client, 0)
    assert poll(client, 0) == {"0": False}


def test_what_nobody_was_given_is_false(splunk: PracticeSplunk, client: httpx.Client) -> None:
    assert poll(client, 0, 7) == {"0": False, "7": False}
    assert poll(client) == {}
    post(client, "a")
    with session(splunk, OTHER) as other:
        assert poll(other, 0) == {"0": False}


def test_the_channel_may_stand_in_the_query(splunk: PracticeSplunk, clock: ManualClock) -> None:
    splunk.ack_seconds = 0
    with session(splunk, channel="") as client:
        assert client.post(f"/event?channel={CHANNEL}", content=b'{"event":"x"}').json()["ackId"] == 0
        answer = client.post(f"/ack?channel={CHANNEL.lower()}", json={"acks": [0]})
        assert answer.json() == {"acks": {"0": True}}


def test_acks_that_never_come(splunk: PracticeSplunk, client: httpx.Client, clock: ManualClock) -> None:
    splunk.ack_seconds = math.inf
    post(client, "a")
    clock.advance(1e9)
    assert poll(client, 0) == {"0": False}


# Codes


def test_code_10_without_a_channel(splunk: PracticeSplunk) -> None:
    with session(splunk, channel="") as client:
        assert post(client, "a")["code"] == 10
        assert poll(client, 0) == 10
    assert splunk.count == 0


@pytest.mark.parametrize("channel", ["x", "FE0ECFAD-13D5-401B-847D-77833BD7713"])
def test_code_11_for_a_channel_that_is_no_guid(splunk: PracticeSplunk, channel: str) -> None:
    with session(splunk, channel) as client:
        assert post(client, "a")["code"] == 11
        assert poll(client, 0) == 11
    assert splunk.count == 0


def test_code_14_for_a_poll_without_acknowledgement_whose_channel_is_read_over() -> None:
    with PracticeSplunk() as server, session(server, "x") as client:
        assert post(client, "a") == {"text": "Success", "code": 0}
        assert poll(client, 0) == 14


def test_codes_2_and_4_for_a_poll_without_a_good_token(splunk: PracticeSplunk) -> None:
    with session(splunk) as client:
        client.headers["Authorization"] = "Splunk wrong"
        assert poll(client, 0) == 4
        del client.headers["Authorization"]
        assert poll(client, 0) == 2


@pytest.mark.parametrize("body", [b"", b"[0]", b'{"acks": 0}', b'{"acks": ["0"]}', b'{"acks": [-1]}'])
def test_code_6_for_a_poll_that_asks_for_nothing(client: httpx.Client, body: bytes) -> None:
    assert client.post("/ack", content=body).json()["code"] == 6


def test_no_id_for_what_stood_before_a_bad_object(splunk: PracticeSplunk, client: httpx.Client) -> None:
    body = b'{"event":"x","fields":{"event_id":"a"}}{"event":""}'
    answer = client.post("/event", content=body).json()
    assert (answer["code"], answer["invalid-event-number"], "ackId" in answer) == (13, 1, False)
    assert splunk.ids == ["a"]
    assert post(client, "b")["ackId"] == 0


# Crashes


def test_a_crash_loses_what_was_not_acknowledged(
    splunk: PracticeSplunk, client: httpx.Client, clock: ManualClock
) -> None:
    post(client, "a", "b")
    clock.advance(2)  # indexed, though nobody has asked
    post(client, "b", "c")
    splunk.crash()
    assert splunk.ids == ["a", "b"]
    assert [one.event_id for one in splunk.events] == ["a", "b"]
    assert splunk.count == 2


def test_after_a_crash_ids_count_from_0_again(
    splunk: PracticeSplunk, client: httpx.Client, clock: ManualClock
) -> None:
    post(client, "a")
    clock.advance(2)
    splunk.crash()
    assert poll(client, 0) == {"0": False}
    assert post(client, "b")["ackId"] == 0


# A load balancer


def balanced(clock: ManualClock, stickiness: Stickiness) -> PracticeSplunk:
    return PracticeSplunk(ack_seconds=0, indexers=2, stickiness=stickiness, monotonic=clock.monotonic)


def test_a_steady_cookie_is_set_once_and_keeps_to_its_indexer(clock: ManualClock) -> None:
    with balanced(clock, "steady") as server, session(server) as client:
        answer = client.post("/event", content=b'{"event":"x"}')
        assert answer.headers["set-cookie"].startswith("LB=")
        for number in range(1, 4):
            answer = client.post("/event", content=b'{"event":"x"}')
            assert (answer.json()["ackId"], "set-cookie" in answer.headers) == (number, False)
        with session(server) as another:
            assert post(another, "y")["ackId"] == 0


def test_a_renewed_cookie_changes_with_each_answer_and_keeps_to_its_indexer(clock: ManualClock) -> None:
    with balanced(clock, "renewed") as server, session(server) as client:
        seen = set()
        for number in range(3):
            answer = client.post("/event", content=b'{"event":"x"}')
            assert answer.json()["ackId"] == number
            seen.add(answer.headers["set-cookie"])
        assert len(seen) == 3


def test_without_a_cookie_requests_take_turns(clock: ManualClock) -> None:
    with balanced(clock, "none") as server, session(server) as client:
        assert [post(client, "x")["ackId"] for _ in range(4)] == [0, 0, 1, 1]
        assert poll(client, 0) == {"0": True}  # each of them has an id 0
        assert poll(client, 0) == {"0": True}
        assert poll(client, 0) == {"0": False}


def test_forgotten_cookies_bind_anew_to_the_other_indexer(clock: ManualClock) -> None:
    with balanced(clock, "steady") as server, session(server) as client:
        post(client, "a")
        server.balancer.forget()
        answer = client.post("/ack", json={"acks": [0]})
        assert answer.json() == {"acks": {"0": False}}
        assert "set-cookie" in answer.headers


def test_an_indexer_that_is_down_is_gone_round(clock: ManualClock) -> None:
    with balanced(clock, "steady") as server, session(server) as client:
        post(client, "a")
        server.balancer.down.add(0)
        assert post(client, "b")["ackId"] == 0
        assert post(client, "c")["ackId"] == 1
