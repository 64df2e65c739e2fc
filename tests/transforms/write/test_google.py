"""Google's credentials as a user has them: a key file, a token service on loopback, refusals, renewal."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from base64 import urlsafe_b64decode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later, certificate
from transforms.way_out import WayOut
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Writer

INSERT = "/insertAll"


class TokenService(PracticeServer):
    """Gives a new token for each assertion."""

    def judge(self, request: Request) -> Answer:
        self.taken([request.path])
        token = {"access_token": f"token-{self.count}", "expires_in": 3600, "token_type": "Bearer"}
        return Answer(200, json.dumps(token).encode())


@pytest.fixture
def tokens() -> Iterator[TokenService]:
    with TokenService() as server:
        yield server


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode()


@pytest.fixture
def key_file(tokens: TokenService, private_key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service account's key, where Google's libraries look for it."""
    key = {
        "type": "service_account",
        "client_email": "writer@practice.iam.gserviceaccount.com",
        "private_key": private_key,
        "private_key_id": "1",
        "token_uri": f"{tokens.url}/token",
        "project_id": "practice",
    }
    file = tmp_path / "key.json"
    file.write_text(json.dumps(key))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    return file


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PracticeBigQuery]:
    context, _ = certificate(tmp_path)
    with PracticeBigQuery(tls=context) as running:
        yield running


@pytest.fixture
def writer(server: PracticeBigQuery, key_file: Path, tmp_path: Path) -> Iterator[Writer]:
    way_out = WayOut(ca_file=str(tmp_path / "certificate.pem"))
    opened = BigQuery("practice.grantex.events", "insert_all", endpoint=server.url, way_out=way_out).open()
    yield opened
    opened.close()


def claims(request: Request) -> dict[str, str]:
    """What the assertion in a token request claims."""
    (assertion,) = parse_qs(request.body.decode())["assertion"]
    body = assertion.split(".")[1]
    found: dict[str, str] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def used(server: PracticeBigQuery) -> list[str]:
    """The tokens that rows came with."""
    inserts = [one for one in server.requests if one.path.endswith(INSERT)]
    return [one.headers["authorization"].removeprefix("Bearer ") for one in inserts]


def test_a_key_file_gives_one_token_for_many_requests(
    server: PracticeBigQuery, tokens: TokenService, writer: Writer
) -> None:
    for _ in range(3):
        assert writer.write(batch(2)) is None
    assert used(server) == ["token-1"] * 3
    assert tokens.count == 1
    assert b"assertion=" in tokens.requests[0].body


def test_a_token_that_is_refused_is_asked_for_anew(server: PracticeBigQuery, writer: Writer) -> None:
    assert writer.write(batch(2)) is None
    server.answer(401, b"", path=INSERT)
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "token-1" not in outcome.cause
    assert writer.write(batch(2)) is None
    assert used(server) == ["token-1", "token-1", "token-2"]


def test_a_key_that_was_revoked_blocks_and_a_new_one_is_found(
    tokens: TokenService, writer: Writer, key_file: Path
) -> None:
    tokens.answer(400, b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}')
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "Google gives no access token" in outcome.cause
    assert "GOOGLE_APPLICATION_CREDENTIALS" in outcome.cause
    key_file.write_text(key_file.read_text().replace("writer@", "other@"))
    assert writer.write(batch(2)) is None
    old, new = (claims(one)["iss"] for one in tokens.requests)
    assert (old.partition("@")[0], new.partition("@")[0]) == ("writer", "other")


def test_a_key_file_that_is_none_blocks_without_its_content(writer: Writer, key_file: Path) -> None:
    key_file.write_text('{"private_key":"hush-hush"}')
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "hush" not in outcome.cause


def test_no_credentials_at_all_block(writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path / "none"))
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.blocked
    assert "gcloud auth application-default login" in outcome.cause


def test_a_token_service_that_is_away_is_waited_for(tokens: TokenService, writer: Writer) -> None:
    tokens.down()
    outcome = all_later(writer.write(batch(2)), 2)
    assert not outcome.blocked
    assert "token service cannot be reached" in outcome.cause
    tokens.up()
    assert writer.write(batch(2)) is None


def test_a_key_that_is_replaced_while_running_is_found_after_a_refusal(
    server: PracticeBigQuery, tokens: TokenService, writer: Writer, key_file: Path
) -> None:
    """The old key's tokens work until they end; then the file is read again."""
    assert writer.write(batch(2)) is None
    key_file.write_text(key_file.read_text().replace("writer@", "other@"))
    server.answer(401, b"", path=INSERT)
    all_later(writer.write(batch(2)), 2)
    assert writer.write(batch(2)) is None
    assert [claims(one)["iss"].partition("@")[0] for one in tokens.requests] == ["writer", "other"]


@pytest.mark.parametrize("body", [b"", b"<html>sign in", b"[]", b"5", b"{}", b"\xff", b"[" * 100_000])
def test_an_answer_that_is_not_the_token_services_keeps_the_events(
    tokens: TokenService, writer: Writer, body: bytes
) -> None:
    tokens.answer(200, body, times=4)
    all_later(writer.write(batch(2)), 2)
    for _ in range(4):
        outcome = writer.write(batch(2))
    assert outcome is None


def test_closing_ends_the_wait_for_a_token(tokens: TokenService, writer: Writer) -> None:
    tokens.hang()
    outcomes: list[object] = []
    thread = threading.Thread(target=lambda: outcomes.append(writer.write(batch(2))))
    thread.start()
    assert tokens.wait_for_requests(1)
    writer.close()
    thread.join(5)
    assert not thread.is_alive()
    assert outcomes != [None]


def test_the_token_service_is_trusted_with_the_same_authority(key_file: Path, tmp_path: Path) -> None:
    """As behind a proxy that looks into TLS, where every service has its certificate."""
    folder = tmp_path / "tls"
    folder.mkdir()
    context, ca_file = certificate(folder)
    with TokenService(tls=context) as service, PracticeBigQuery(tls=context) as server:
        key = json.loads(key_file.read_text())
        key_file.write_text(json.dumps({**key, "token_uri": f"{service.url}/token"}))
        settings = BigQuery(
            "practice.grantex.events", "insert_all", endpoint=server.url, way_out=WayOut(ca_file=ca_file)
        )
        writer = settings.open()
        assert writer.write(batch(2)) is None
        assert (used(server), service.count) == (["token-1"], 1)
        writer.close()


@pytest.mark.slow
def test_publishing_knows_nothing_of_bigquery() -> None:
    """Nor does reading the settings of either load Google's libraries."""
    program = (
        "import sys\n"
        "from transforms.write.pubsub.destination import PubSub\n"
        "from transforms.write.bigquery.destination import BigQuery\n"
        "assert not {'transforms.write.google', 'transforms.write.pubsub.writer'} & set(sys.modules)\n"
        "for name in [name for name in sys.modules if name.startswith('transforms.write.bigquery')]:\n"
        "    del sys.modules[name]\n"
        "PubSub('projects/my-project/topics/t-1-2', 'http://127.0.0.1:9').open().close()\n"
        "assert not [name for name in sys.modules if name.startswith('transforms.write.bigquery')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
