"""Every way out through a real proxy, under names that only the proxy knows, and never when it is not far."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.pubsub_v1.types import pubsub

from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.feed import PRACTICE_KEY, PracticeFeed
from pipelines.practice.gcs import PracticeGCS
from pipelines.practice.http_server import Answer, PracticeServer, Request
from pipelines.practice.splunk import PracticeSplunk
from tests.servers.authority import Authority, Pair
from tests.servers.outgoing_proxy import OutgoingProxy, outgoing_proxy
from tests.transforms.feed.memory_intake import MemoryIntake
from tests.transforms.feed.test_connection import until
from tests.transforms.write.encodings import batch
from transforms import secret
from transforms.archive.choice import Archive
from transforms.archive.objects import GoogleObjects
from transforms.event import Batch
from transforms.feed.connection import FeedConnection
from transforms.feed.request import TRANSPORTS, FeedSettings
from transforms.proxies import parse_proxy
from transforms.secret import AwsSecret, GoogleSecret, LiteralSecret, read_by, redact
from transforms.way_out import WayOut
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination, Outcome
from transforms.write.datadog.destination import Datadog
from transforms.write.gcs.destination import GCS
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

LOGIN = "grantex:s3cret%20w%3Ard%401"
PASSWORD = "s3cret w:rd@1"
NAMES = ("splunk", "datadog", "s3", "sts", "secrets", "bigquery", "gcs", "tokens", "pubsub", "feed")
HOUR = "dt=2026-03-01/hour=12"
VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ways")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder)


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.issue("services", *(f"{name}.test" for name in NAMES))


@pytest.fixture
def tls(pair: Pair) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[OutgoingProxy]:
    with outgoing_proxy(folder / "proxy", login=f"grantex:{PASSWORD}") as started:
        yield started


@pytest.fixture
def proxy(running: OutgoingProxy) -> OutgoingProxy:
    """Asked for nothing yet: also not by a request of the test before, which it may still be reading."""
    deadline = time.monotonic() + 5
    while running.is_in_use() and time.monotonic() < deadline:
        time.sleep(0.01)
    running.notes.unlink(missing_ok=True)
    return running


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "practice",
        "AWS_SECRET_ACCESS_KEY": "practice",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "NO_GCE_CHECK": "true",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def way_out(authority: Authority) -> WayOut:
    return WayOut(ca_file=str(authority.file))


def through(proxy: OutgoingProxy, monkeypatch: pytest.MonkeyPatch, login: str = LOGIN) -> None:
    """As a user's environment has it."""
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://{login}{'@' if login else ''}{proxy.address}")


def named(server: PracticeServer | PracticeFeed, name: str) -> str:
    return server.url.replace("127.0.0.1", f"{name}.test")


# The services


class Canned(PracticeServer):
    """Answers each request with the same."""

    body = b""

    def judge(self, request: Request) -> Answer:
        self.taken([request.path])
        return Answer(200, self.body, (("ETag", '"e"'),))


TOKEN = b'{"access_token": "token-1", "expires_in": 3600, "token_type": "Bearer"}'
SECRET = b'{"Name": "hec", "SecretString": "0123456789abcdef"}'
STS = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult>
<Credentials><AccessKeyId>a</AccessKeyId><SecretAccessKey>b</SecretAccessKey><SessionToken>c</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


@contextlib.contextmanager
def canned(tls: ssl.SSLContext, body: bytes) -> Iterator[Canned]:
    with Canned(tls=tls) as server:
        server.body = body
        yield server


@pytest.fixture
def google_key(tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    """A service account's key file, whose token service is tokens.test."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with canned(tls, TOKEN) as tokens:
        key = {
            "type": "service_account",
            "client_email": "writer@practice.iam.gserviceaccount.com",
            "private_key": private.decode(),
            "private_key_id": "1",
            "token_uri": f"{named(tokens, 'tokens')}/token",
            "project_id": "practice",
        }
        (tmp_path / "key.json").write_text(json.dumps(key))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        yield tokens


@contextlib.contextmanager
def topic(pair: Pair) -> Iterator[int]:
    """Pub/Sub's Publish over gRPC with TLS; yields its port."""

    def publish(request: Any, context: Any) -> Any:
        return pubsub.PublishResponse.pb()(message_ids=[str(n) for n in range(len(request.messages))])

    handler = grpc.unary_unary_rpc_method_handler(
        publish, pubsub.PublishRequest.pb().FromString, pubsub.PublishResponse.pb().SerializeToString
    )
    with over_grpc(pair, "google.pubsub.v1.Publisher", {"Publish": handler}) as port:
        yield port


@contextlib.contextmanager
def over_grpc(pair: Pair, service: str, methods: dict[str, Any]) -> Iterator[int]:
    """A service with TLS; yields its port."""
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, methods),))
    credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.certificate.read_bytes())])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield port
    server.stop(None)


def write(destination: Destination, events: Batch | None = None) -> Outcome | None:
    writer = destination.open()
    try:
        return writer.write(events or batch(3))
    finally:
        writer.close()


# Through it


def test_splunk(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    with PracticeSplunk(tls=tls) as server:
        url = named(server, "splunk")
        assert write(Splunk(url, LiteralSecret(server.token), way_out=way_out)) is None
        assert server.count == 3
        assert proxy.asked == [f"CONNECT splunk.test:{server.port}"]
        # A name may end with a dot, which no certificate has.
        dotted = url.replace(".test", ".test.")
        assert write(Splunk(dotted, LiteralSecret(server.token), way_out=way_out)) is None


def test_unencrypted(proxy: OutgoingProxy, way_out: WayOut, monkeypatch: pytest.MonkeyPatch) -> None:
    through(proxy, monkeypatch)
    with PracticeSplunk() as server:
        assert write(Splunk(named(server, "splunk"), LiteralSecret(server.token), way_out=way_out)) is None
        assert server.count == 3
        assert proxy.asked == [f"POST splunk.test:{server.port}"]


def test_datadog(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    with PracticeDatadog(tls=tls) as server:
        made = Datadog(LiteralSecret(server.key), endpoint=named(server, "datadog"), way_out=way_out)
        assert write(made) is None
        assert proxy.asked == [f"CONNECT datadog.test:{server.port}"]


def test_s3_through_a_role(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    with canned(tls, STS) as sts, canned(tls, b"") as bucket:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", named(sts, "sts"))
        role = "arn:aws:iam::123456789012:role/a"
        made = S3("archive", endpoint=named(bucket, "s3"), role_arn=role, way_out=way_out)
        assert write(made, batch(3, HOUR)) is None
        assert sorted(proxy.asked) == [f"CONNECT s3.test:{bucket.port}", f"CONNECT sts.test:{sts.port}"]


def test_aws_secrets(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    with (
        canned(tls, SECRET) as secrets,
        PracticeSplunk(tls=tls, token="0123456789abcdef") as server,
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", named(secrets, "secrets"))
        assert write(Splunk(named(server, "splunk"), AwsSecret("hec"), way_out=way_out)) is None
        assert sorted(proxy.asked) == [
            f"CONNECT secrets.test:{secrets.port}",
            f"CONNECT splunk.test:{server.port}",
        ]


def test_bigquery_and_the_token_service(
    proxy: OutgoingProxy,
    tls: ssl.SSLContext,
    way_out: WayOut,
    google_key: Canned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(proxy, monkeypatch)
    with PracticeBigQuery(tls=tls) as server:
        url = named(server, "bigquery")
        assert write(BigQuery("practice.grantex.events", "insert_all", endpoint=url, way_out=way_out)) is None
        assert len(server.rows("events")) == 3
        assert set(proxy.asked) == {
            f"CONNECT tokens.test:{google_key.port}",
            f"CONNECT bigquery.test:{server.port}",
        }


def test_cloud_storage_written_and_read_back(
    proxy: OutgoingProxy,
    tls: ssl.SSLContext,
    way_out: WayOut,
    google_key: Canned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(proxy, monkeypatch)
    asked = {f"CONNECT tokens.test:{google_key.port}"}
    with PracticeGCS(tls=tls, key="token-1") as server:
        asked.add(f"CONNECT gcs.test:{server.port}")
        made = GCS(server.bucket, endpoint=named(server, "gcs"), way_out=way_out)
        assert [one.passed for one in made.preflight()] == [True]
        assert write(made) is None
        assert set(proxy.asked) == asked
        proxy.notes.unlink()
        archive = Archive(GoogleObjects(server.bucket, "", named(server, "gcs"), way_out))
        (shard,) = archive.shards()
        assert [list(events) for _, events in archive.read(shard, Counter())] == [batch(3).events]
        # Google's authentication may look up more about the account, the same way.
        assert set(proxy.asked) - {"CONNECT iamcredentials.googleapis.com:443"} == asked
        server.key = "another"
        outcome = write(made)
        assert outcome is not None
        assert "give a service account or user that is valid" in outcome.cause


def test_grpc(
    proxy: OutgoingProxy,
    pair: Pair,
    way_out: WayOut,
    google_key: Canned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(proxy, monkeypatch)
    with topic(pair) as port:
        made = PubSub("projects/my-project/topics/t-1", f"https://pubsub.test:{port}", way_out=way_out)
        assert write(made) is None
        assert f"CONNECT pubsub.test:{port}" in proxy.asked


def test_google_secret_manager(
    proxy: OutgoingProxy,
    pair: Pair,
    way_out: WayOut,
    google_key: Canned,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse

    def access(request: Any, context: Any) -> Any:
        assert dict(context.invocation_metadata())["authorization"] == "Bearer token-1"
        return AccessSecretVersionResponse(payload={"data": b"0123456789abcdef"})

    handler = grpc.unary_unary_rpc_method_handler(
        access, AccessSecretVersionRequest.deserialize, AccessSecretVersionResponse.serialize
    )
    through(proxy, monkeypatch)
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    with over_grpc(pair, service, {"AccessSecretVersion": handler}) as port:
        monkeypatch.setattr(secret, "GOOGLE_SECRETS", f"https://secrets.test:{port}")
        assert read_by(way_out, GoogleSecret("projects/p/secrets/hec")) == "0123456789abcdef"
        assert set(proxy.asked) == {
            f"CONNECT tokens.test:{google_key.port}",
            f"CONNECT secrets.test:{port}",
        }


def test_what_reads_the_environment_alone(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beam's own clients of gs:// and s3:// go through requests and boto3."""
    for name in (*VARIABLES, "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        for each in (name, name.lower()):
            monkeypatch.setenv(each, "")  # so that it is as before afterwards
            monkeypatch.delenv(each)
    replace(way_out, http_proxy=parse_proxy(f"http://{LOGIN}@{proxy.address}")).lend(os.environ)
    with canned(tls, b"there") as far, canned(tls, b"here") as near:
        assert requests.get(named(far, "s3"), timeout=10).text == "there"
        assert requests.get(near.url, timeout=10).text == "here"
        assert proxy.asked == [f"CONNECT s3.test:{far.port}"]


both_transports = pytest.mark.parametrize("transport", TRANSPORTS)


@both_transports
def test_the_feed(
    transport: str,
    proxy: OutgoingProxy,
    tls: ssl.SSLContext,
    way_out: WayOut,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    through(proxy, monkeypatch)
    key = LiteralSecret(PRACTICE_KEY)
    with PracticeFeed(keepalive=None, tls=tls) as feed:
        settings = FeedSettings(named(feed, "feed"), key, transport=transport, way_out=way_out)
        with reading(settings) as (connection, intake):
            feed.wait_for_streams()
            feed.publish_many([b'{"id":"evt_1","type":"a","createdAt":"2026-03-01T12:00:00Z","data":{}}'])
            intake.wait_for(lambda: len(intake.events) == 1)
            assert connection._wire.is_watched, "or each block would be an append"
        assert set(proxy.asked) == {f"CONNECT feed.test:{feed.port}"}


@contextlib.contextmanager
def reading(settings: FeedSettings) -> Iterator[tuple[FeedConnection, MemoryIntake]]:
    connection, intake, stop = FeedConnection(settings), MemoryIntake(), threading.Event()
    thread = threading.Thread(target=connection.run, args=(intake, stop), daemon=True)
    thread.start()
    try:
        yield connection, intake
    finally:
        stop.set()
        connection.interrupt()
        thread.join(10.0)
        assert not thread.is_alive()


def test_a_proxy_by_setting_goes_before_the_environment(
    proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    given = replace(way_out, http_proxy=parse_proxy(f"http://{LOGIN}@{proxy.address}"))
    with PracticeSplunk(tls=tls) as server:
        assert write(Splunk(named(server, "splunk"), LiteralSecret(server.token), way_out=given)) is None
        assert proxy.asked == [f"CONNECT splunk.test:{server.port}"]


# Not through it


@pytest.mark.parametrize("no_proxy", ["", "splunk.test", ".test", "*"])
def test_this_machine_and_no_proxy_are_reached_directly(
    no_proxy: str, proxy: OutgoingProxy, tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    monkeypatch.setenv("NO_PROXY", no_proxy)
    with PracticeSplunk(tls=tls) as server:
        url = named(server, "splunk") if no_proxy else server.url
        outcome = write(Splunk(url, LiteralSecret(server.token), way_out=way_out))
        assert (outcome is None) == (not no_proxy), "nobody but the proxy knows where splunk.test is"
    assert proxy.asked == []


def test_an_emulator_on_this_machine_is_reached_directly(
    proxy: OutgoingProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch)
    for name in ("grpc_proxy", "https_proxy", "http_proxy"):  # gRPC reads these by itself
        monkeypatch.setenv(name, f"http://{proxy.address}")
    with PracticeBigQuery() as server:
        made = BigQuery("practice.grantex.events", endpoint=server.url, storage_endpoint=server.storage_url)
        assert write(made) is None
        assert len(server.rows("events")) == 3
    assert proxy.asked == []


# When it does not work


def every_destination(way_out: WayOut) -> list[Destination]:
    return [
        Splunk("https://splunk.test:1", LiteralSecret("0123456789"), way_out=way_out),
        Splunk("http://splunk.test:1", LiteralSecret("0123456789"), way_out=way_out),
        Datadog(LiteralSecret("0123456789"), endpoint="https://datadog.test:1", way_out=way_out),
        S3("archive", endpoint="https://s3.test:1", way_out=way_out),
        PubSub("projects/my-project/topics/t-1", "https://pubsub.test:1", way_out=way_out),
        BigQuery("practice.grantex.t", "insert_all", endpoint="https://bigquery.test:1", way_out=way_out),
        GCS("archive", endpoint="https://gcs.test:1", way_out=way_out),
    ]


@pytest.mark.parametrize("login", ["", "grantex:wr0ng-word"])
@pytest.mark.usefixtures("google_key")
def test_a_refusal_names_the_proxy_and_what_it_said(
    login: str, proxy: OutgoingProxy, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch, login)
    for destination in every_destination(way_out):
        outcome = write(destination, batch(3, HOUR) if destination.name == "s3" else None)
        assert outcome is not None
        assert not outcome.unknown, destination
        assert proxy.address in outcome.cause, outcome.cause
        assert "407" in outcome.cause, outcome.cause
        assert "wr0ng" not in outcome.cause
        assert redact(outcome.cause) == outcome.cause


@pytest.mark.usefixtures("google_key")
def test_a_proxy_that_is_not_there_is_named(way_out: WayOut, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://u:s3cret-word@127.0.0.1:9")
    for destination in every_destination(way_out):
        outcome = write(destination, batch(3, HOUR) if destination.name == "s3" else None)
        assert outcome is not None
        assert not outcome.unknown
        assert "127.0.0.1:9" in outcome.cause, outcome.cause
        assert "s3cret" not in outcome.cause


@both_transports
@pytest.mark.parametrize("login", ["", "grantex:wr0ng-word"])
def test_the_feed_names_it_as_well(
    login: str, transport: str, proxy: OutgoingProxy, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(proxy, monkeypatch, login)
    key = LiteralSecret(PRACTICE_KEY)
    settings = FeedSettings("https://feed.test:1", key, transport=transport, way_out=way_out)
    with reading(settings) as (connection, _):
        until(lambda: connection.status.last_problem)
        assert proxy.address in connection.status.last_problem
        assert "407" in connection.status.last_problem
        assert "wr0ng" not in connection.status.last_problem


def test_the_proxy_says_nothing_of_the_password(running: OutgoingProxy) -> None:
    assert PASSWORD not in running.log.read_text()


# Inspection: the proxy reads what passes, with certificates of its own authority


@dataclass
class Inspected:
    """What a company's network looks like from inside."""

    proxy: OutgoingProxy
    authority: Authority


@pytest.fixture
def inspected(authority: Authority, tmp_path: Path) -> Iterator[Inspected]:
    company = Authority(tmp_path, "company")
    with outgoing_proxy(tmp_path / "inspecting", intercepts=company, trusts=authority.file) as proxy:
        yield Inspected(proxy, company)


def test_inspection_is_believed_with_its_authority_alone(
    inspected: Inspected, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(inspected.proxy, monkeypatch, "")
    believing = WayOut(ca_file=str(inspected.authority.file))
    with PracticeSplunk(tls=tls) as server:
        made = Splunk(named(server, "splunk"), LiteralSecret(server.token), way_out=believing)
        assert write(made) is None
        outcome = write(replace(made, way_out=WayOut()))
        assert outcome is not None
        assert "certificate is not trusted" in outcome.cause
        assert server.count == 3


@both_transports
def test_the_feed_through_inspection(
    transport: str, inspected: Inspected, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    through(inspected.proxy, monkeypatch, "")
    key, company = LiteralSecret(PRACTICE_KEY), WayOut(ca_file=str(inspected.authority.file))
    with PracticeFeed(keepalive=None, tls=tls) as feed:
        settings = FeedSettings(named(feed, "feed"), key, transport=transport, way_out=company)
        with reading(settings) as (_, intake):
            feed.wait_for_streams()
            feed.publish(b'{"id":"evt_1"}')
            intake.wait_for(lambda: len(intake.events) == 1)


# Certificates of ours


@both_transports
def test_splunk_and_the_feed_are_shown_our_certificate(
    transport: str, authority: Authority, tls: ssl.SSLContext, way_out: WayOut
) -> None:
    ours = authority.issue("client")
    tls.verify_mode = ssl.CERT_REQUIRED
    tls.load_verify_locations(authority.file)
    shown = replace(way_out, client_certificate=str(ours.certificate), client_key=str(ours.key))
    with PracticeSplunk(tls=tls) as server, PracticeFeed(keepalive=None, tls=tls) as feed:
        splunk = Splunk(server.url, LiteralSecret(server.token), way_out=way_out)
        assert write(splunk) is not None
        assert write(replace(splunk, way_out=shown)) is None
        together = replace(way_out, client_certificate=str(ours.together))
        assert write(replace(splunk, way_out=together)) is None
        settings = FeedSettings(feed.url, LiteralSecret(PRACTICE_KEY), transport=transport, way_out=shown)
        with reading(settings) as (_, _):
            feed.wait_for_streams()
        with reading(replace(settings, way_out=way_out)) as (connection, _):
            until(lambda: connection.status.last_problem)


# Addresses


def test_ipv6_addresses_stand_in_brackets() -> None:
    for destination in (
        Splunk("https://[::1]:9", LiteralSecret("0123456789")),
        Datadog(LiteralSecret("0123456789"), endpoint="https://[::1]:9"),
    ):
        outcome = write(destination)
        assert outcome is not None
        assert "https://[::1]:9" in outcome.cause


def test_a_full_name_may_end_with_a_dot(
    tls: ssl.SSLContext, way_out: WayOut, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = socket.getaddrinfo

    def dotted(host: Any, *more: Any, **named: Any) -> Any:
        return found("127.0.0.1" if host in ("splunk.test.", "feed.test.") else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", dotted)
    key = LiteralSecret(PRACTICE_KEY)
    with PracticeSplunk(tls=tls) as server, PracticeFeed(keepalive=None, tls=tls) as feed:
        url = f"https://splunk.test.:{server.port}"
        assert write(Splunk(url, LiteralSecret(server.token), way_out=way_out)) is None
        with reading(FeedSettings(f"https://feed.test.:{feed.port}", key, way_out=way_out)):
            feed.wait_for_streams()
