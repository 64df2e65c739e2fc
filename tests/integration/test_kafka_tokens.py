"""Signing in with tokens against a real broker, which closes each connection when its token expires."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.integration.test_kafka import ids, until_delivered
from tests.servers.dataflow import service_account
from tests.servers.kafka import USER, KafkaServer
from tests.transforms.write.encodings import batch, event
from tests.transforms.write.kafka import msk_signer
from transforms.archive.ids import in_topic
from transforms.event import Batch
from transforms.way_out import WayOut
from transforms.write.kafka.destination import Kafka


@pytest.fixture
def topic(broker: KafkaServer, request: pytest.FixtureRequest) -> str:
    name = str(request.node.name)
    broker.create_topic(name)
    return name


def msk(broker: KafkaServer, topic: str) -> Kafka:
    return Kafka(broker.sasl_ssl_servers, topic, token="msk-iam", way_out=WayOut(ca_file=broker.authority))


def test_a_token_that_expires_twice_during_a_delivery_loses_nothing(
    broker: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer = msk_signer.install(monkeypatch, USER, seconds=3.0)
    writer = msk(broker, topic).open()
    sent: Counter[str] = Counter()
    # The first two are of the same moment: of our own look, and what librdkafka asks for.
    while len(signer.made) < 3 or signer.made[2] > time.time():
        what = Batch([event(len(sent))])
        until_delivered(writer, what)
        sent.update(each.id for each in what.events)
    writer.close()
    assert signer.made[0] < signer.made[2] < time.time()
    assert ids(broker, topic) == sent


def test_credentials_that_go_away_block_once_the_token_expires_and_are_found_again(
    broker: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    msk_signer.install(monkeypatch, USER, seconds=2.0)
    writer = msk(broker, topic).open()
    assert until_delivered(writer, Batch([event(0)])) == []
    sent = Counter([event(0).id])
    give_up = time.monotonic() + 30
    with monkeypatch.context() as without:
        msk_signer.take_away(without)
        writer._tokens.forget()  # type: ignore[union-attr]  # as a role's credentials are, at their end
        wanted = "no credentials to make a token of (AWS's usual places have none)"  # the broker may be first
        while (outcome := writer.write(Batch([event(len(sent))]))) is None or wanted not in outcome.cause:
            assert time.monotonic() < give_up, outcome
            if outcome is None:
                sent[event(len(sent)).id] += 1
        assert outcome.blocked
        assert "give the job AWS's usual credentials" in outcome.cause
    what = Batch([event(len(sent))])
    until_delivered(writer, what)
    sent[what.events[0].id] += 1
    writer.close()
    assert ids(broker, topic) == sent


class GoogleTokens(PracticeServer):
    """Gives access tokens."""

    def judge(self, request: Request) -> Answer:
        return Answer(200, b'{"access_token": "hush-hush", "expires_in": 3600, "token_type": "Bearer"}')


def test_a_token_that_is_refused_blocks(
    broker: KafkaServer, topic: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google's, which Google's own brokers understand alone."""
    with GoogleTokens() as server:
        service_account(tmp_path / "key.json", f"{server.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        way_out = WayOut(ca_file=broker.authority)
        kafka = Kafka(broker.sasl_ssl_servers, topic, token="google", way_out=way_out)
        writer = kafka.open()
        outcome = writer.write(batch(3))
        writer.close()
        (finding,) = kafka.preflight()
    assert outcome is not None
    assert (list(outcome.later), outcome.blocked, outcome.unknown) == ([0, 1, 2], True, False)
    assert "refused the token that signs us in" in outcome.cause
    assert "roles/managedkafka.client" in outcome.cause
    assert finding.passed is False
    assert "hush" not in outcome.cause + finding.cause


def test_check_and_reading_back_sign_in_as_well(
    broker: KafkaServer, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    msk_signer.install(monkeypatch, USER)
    kafka = msk(broker, topic)
    findings = list(kafka.check())
    assert findings[0].note == "3 partitions, 1 replica of each"
    assert all(each.passed for each in findings)
    writer = kafka.open()
    until_delivered(writer, batch(5))
    writer.close()
    found = Counter(each.id for some, _ in in_topic(kafka, 1_772_000_000.0) for each in some)
    assert found == Counter(each.id for each in batch(5).events)
