"""Tokens for Amazon MSK and Google's Managed Kafka without a broker: what is in them; why there is none."""

from __future__ import annotations

import json
import pickle
import sys
import time
from base64 import urlsafe_b64decode
from pathlib import Path

import pytest

from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.servers.dataflow import service_account
from tests.transforms.write.encodings import batch
from tests.transforms.write.kafka import msk_signer
from transforms.way_out import WayOut
from transforms.write.kafka.destination import Kafka
from transforms.write.kafka.tokens import SIGNER, Aws, TokenError, tokens, wrapped

MSK = "b-1.demo.abc123.c2.kafka.us-east-1.amazonaws.com:9098"


# Settings


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"sasl.mechanism": "PLAIN"}, "token: needs sasl.mechanism=OAUTHBEARER, which it sets by itself"),
        ({"security.protocol": "SASL_PLAINTEXT"}, "token: needs security.protocol=SASL_SSL"),
        ({"sasl.username": "hush-hush"}, "token: is a second way to sign in beside sasl.username"),
        ({"sasl.oauthbearer.method": "oidc"}, "a second way to sign in beside sasl.oauthbearer.method"),
        ({"enable.sasl.oauthbearer.unsecure.jwt": "true"}, "a second way to sign in"),
    ],
)
def test_another_way_to_sign_in_is_refused(config: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError) as caught:
        Kafka("k:9092", config=config, token="msk-iam")
    assert says in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "config", [{}, {"security.protocol": "sasl_ssl"}, {"sasl.mechanisms": "OAUTHBEARER"}, {"linger.ms": "9"}]
)
def test_what_a_token_goes_together_with(config: dict[str, str]) -> None:
    kafka = Kafka("k:9092", config=config, token="google")
    assert pickle.loads(pickle.dumps(kafka)) == kafka


# Amazon MSK


@pytest.mark.parametrize(
    ("servers", "region"),
    [
        (MSK, "us-east-1"),
        ("boot-x1.c1.kafka-serverless.ap-south-1.amazonaws.com:9098", "ap-south-1"),
        ("kafka.example.com:9098", "eu-west-1"),  # AWS_REGION
    ],
)
def test_the_region_is_the_clusters(servers: str, region: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = msk_signer.install(monkeypatch)
    made = tokens("msk-iam", servers, WayOut())
    assert made is not None
    text, expires = made("")
    assert signer.asked == [(region, "AKIAPRACTICE")]
    assert text.count(".") == 2
    assert 890 < expires - time.time() < 901
    assert made.account == "AKIAPRACTICE"


def test_no_region_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    msk_signer.install(monkeypatch)
    monkeypatch.delenv("AWS_REGION")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(TokenError, match="set AWS_REGION where the job runs"):
        Aws("kafka.example.com:9098", WayOut()).sign()


def test_without_the_package_its_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, SIGNER, None)  # as if it were not installed
    writer = Kafka(MSK, token="msk-iam").open()
    outcome = writer.write(batch(2))
    (finding,) = writer.preflight()
    writer.close()
    assert outcome is not None
    assert (list(outcome.later), outcome.blocked, outcome.unknown) == ([0, 1], True, False)
    assert "AWS's signer of tokens is not installed" in outcome.cause
    assert outcome.cause.endswith("pip install 'grantex-beam[msk]', on workers too.")
    assert (finding.passed, finding.cause) == (False, outcome.cause)


def test_credentials_that_are_missing_are_found_when_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    msk_signer.install(monkeypatch)
    aws = Aws(MSK, WayOut())
    with monkeypatch.context() as without:
        msk_signer.take_away(without)
        with pytest.raises(TokenError, match="no credentials to make a token of"):
            aws.sign()
    assert aws.sign().account == "AKIAPRACTICE"


def test_a_file_of_authorities_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    msk_signer.install(monkeypatch)
    for kind in ("msk-iam", "google"):
        made = tokens(kind, MSK, WayOut(ca_file="/nowhere.pem"))  # type: ignore[arg-type]
        assert made is not None
        with pytest.raises(TokenError, match=r"/nowhere\.pem of --ca_file cannot be read"):
            made.sign()
        made.close()


def test_the_real_signer_makes_a_signed_url(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("aws_msk_iam_sasl_signer")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAPRACTICE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of-a-role")
    token = Aws(MSK, WayOut()).sign()
    url = decoded(token.text)
    assert url.startswith("https://kafka.us-east-1.amazonaws.com/?Action=kafka-cluster%3AConnect")
    assert "X-Amz-Credential=AKIAPRACTICE" in url
    assert "X-Amz-Security-Token=of-a-role" in url
    assert "hush" not in url
    assert 880 < token.expires - time.time() < 901
    assert token.account == ""


# Google's Managed Kafka


class TokenService(PracticeServer):
    """Gives a new token for each assertion."""

    def judge(self, request: Request) -> Answer:
        self.taken([request.path])
        token = {"access_token": f"token-{self.count}", "expires_in": 3600, "token_type": "Bearer"}
        return Answer(200, json.dumps(token).encode())


def decoded(part: str) -> str:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4)).decode()


def test_googles_token_is_the_access_token_in_the_form_of_a_jwt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with TokenService() as service:
        service_account(tmp_path / "key.json", f"{service.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        made = tokens("google", "bootstrap.c.europe-west1.managedkafka.p.cloud.goog:9092", WayOut())
        assert made is not None
        text, expires = made("")
        assert made("")[1] == expires
        assert service.count == 1
        service.down()
        made.forget()
        with pytest.raises(TokenError, match="as who gives them does not answer") as caught:
            made.sign()
        made.close()
    header, claims, access_token = map(decoded, text.split("."))
    assert json.loads(header) == {"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}
    told = json.loads(claims)
    assert told.pop("iat") == pytest.approx(time.time(), abs=60)
    assert told == {
        "exp": expires,
        "iss": "Google",
        "scope": "kafka",
        "sub": "launcher@my-project.iam.gserviceaccount.com",
    }
    assert expires == pytest.approx(time.time() + 3600, abs=60)
    assert access_token == "token-1"
    assert made.account == "launcher@my-project.iam.gserviceaccount.com"
    # The old one is still good, so nothing is missing yet.
    assert (caught.value.kind, made.still_good, made.missing) == ("token_service", True, None)


def test_no_credentials_of_google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    writer = Kafka("k.example.com:9092", token="google").open()
    outcome = writer.write(batch(2))
    writer.close()
    assert outcome is not None
    assert outcome.blocked
    assert "no credentials to make a token of (DefaultCredentialsError)" in outcome.cause


def test_padding_is_left_out_of_every_length() -> None:
    for length in range(4):
        assert "=" not in wrapped("x" * length, 1.0, "a" * length).text
