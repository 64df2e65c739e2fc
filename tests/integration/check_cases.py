"""What can be wrong with a way out, one case each: set up against a real server where there is one."""

from __future__ import annotations

import contextlib
import json
import ssl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]

from pipelines.check_machine import check_machine, check_secret
from pipelines.flags.settings import parse
from pipelines.practice.bigquery import PracticeBigQuery
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.feed import PRACTICE_DEVELOPER, PracticeFeed
from pipelines.practice.feed_websocket import SOCKET
from pipelines.practice.gcs import PracticeGCS
from pipelines.practice.ledger import Ledger
from pipelines.practice.s3 import PracticeS3
from pipelines.practice.splunk import PracticeSplunk
from tests.servers import moto
from tests.servers.authority import Authority
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.kafka import PASSWORD, USER, KafkaServer
from tests.servers.kafka_listeners import GUEST
from tests.servers.outgoing_proxy import OutgoingProxy
from tests.servers.process import free_port
from tests.servers.pubsub import PubSubServer
from tests.transforms.write.manual_clock import ManualClock
from transforms.clock import SystemClock
from transforms.feed.check import check_key, check_socket, check_webhooks
from transforms.feed.request import FeedSettings
from transforms.preflight import Try
from transforms.proxies import parse_proxy
from transforms.secret import AwsSecret, LiteralSecret
from transforms.way_out import USUAL, WayOut
from transforms.write.bigquery.destination import BigQuery
from transforms.write.datadog.destination import Datadog
from transforms.write.files.destination import Files
from transforms.write.gcs.destination import GCS
from transforms.write.kafka.destination import Kafka
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk


@dataclass
class Place:
    """Where a case is set up. `server` finds a real server by its fixture's name; `secrets` must not be
    seen."""

    directory: Path
    environment: pytest.MonkeyPatch
    server: Callable[[str], Any]
    secrets: list[str] = field(default_factory=list)

    def secret(self, value: str) -> LiteralSecret:
        self.secrets.append(value)
        return LiteralSecret(value)

    def aws(self, key: str, secret: str) -> None:
        """As a user's environment has it."""
        self.secrets.append(secret)
        self.environment.setenv("AWS_ACCESS_KEY_ID", key)
        self.environment.setenv("AWS_SECRET_ACCESS_KEY", secret)

    def tls(self, name: str = "services") -> tuple[ssl.SSLContext, Authority]:
        """A server's context, and who vouches for it."""
        authority = Authority(self.directory)
        pair = authority.issue(name)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        return context, authority


@dataclass(frozen=True)
class Case:
    """of: whose way it is. wrong: what is wrong. result: what `check` must come to, and `says`: a part of
    what it must say."""

    of: str
    wrong: str
    result: str
    says: str
    start: Callable[[Place], AbstractContextManager[Try]]

    @property
    def name(self) -> str:
        return f"{self.of}: {self.wrong}"


CASES: list[Case] = []
FAILED, UNKNOWN, WARNING = "FAILED", "UNKNOWN", "warning"
Setup = Callable[[Place], Iterator[Try]]


def case(of: str, wrong: str, result: str, says: str) -> Callable[[Setup], Setup]:
    """A generator that yields what is tried, as a case of the table."""

    def add(setup: Setup) -> Setup:
        CASES.append(Case(of, wrong, result, says, contextlib.contextmanager(setup)))
        return setup

    return add


# The feed


def reading(feed: PracticeFeed, place: Place, way_out: WayOut = USUAL, url: str = "") -> FeedSettings:
    return FeedSettings(url or feed.url, place.secret(feed.api_key), way_out=way_out)


def signed_in(place: Place) -> WayOut:
    """Through a proxy that knows no such user."""
    proxy: OutgoingProxy = place.server("asking_proxy")
    place.secrets.append("wrong-password")
    return WayOut(http_proxy=parse_proxy(f"http://us:wrong-password@{proxy.address}"))


@case("Feed", "the API key", FAILED, "--feed_api_key")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        settings = reading(feed, place)
        feed.api_keys = {}
        yield lambda: check_key(settings)


@case("Feed", "nothing listens at its URL", UNKNOWN, "--feed_url")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        settings = reading(feed, place)
        feed.down()
        yield lambda: check_key(settings)


@case("Feed", "the certificate authority", FAILED, "--ca_file")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed(tls=place.tls()[0]) as feed:
        yield lambda: check_key(reading(feed, place))


@case("Feed", "the proxy is not there", UNKNOWN, "no way through the proxy")
def _(place: Place) -> Iterator[Try]:
    proxy = WayOut(http_proxy=parse_proxy(f"http://127.0.0.1:{free_port()}"))
    yield lambda: check_key(FeedSettings("http://feed.test", place.secret("gx-for-nobody"), way_out=proxy))


@case("Feed", "the proxy wants a sign-in", FAILED, "407")
def _(place: Place) -> Iterator[Try]:
    way = signed_in(place)
    yield lambda: check_key(FeedSettings("https://feed.test", place.secret("gx-for-nobody"), way_out=way))


@case("Feed", "this machine's clock is ten minutes slow", FAILED, "set the clock")
def _(place: Place) -> Iterator[Try]:
    service = ManualClock(now=SystemClock().now() + 600)
    with PracticeFeed(ledger=Ledger(clock=service)) as feed:
        yield lambda: check_key(reading(feed, place))


@case("Feed", "the minute's requests are nearly used up", WARNING, "larger plan")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed(ledger=Ledger(requests_per_minute=1)) as feed:
        yield lambda: check_key(reading(feed, place))


@case("Feed", "`--ledger_webhook` names no webhook of this key", FAILED, "--ledger_webhook")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        feed.ledger.register(PRACTICE_DEVELOPER, "https://audit.example.com", ["grant.created"])
        (made,) = feed.ledger.webhooks.values()
        made.id = "wh_1"
        yield lambda: check_webhooks(reading(feed, place), ledger_webhook="wh_2")


@case("Feed", "no webhook posts to `--webhook_url`", WARNING, "provision feed")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        yield lambda: check_webhooks(reading(feed, place), webhook_url="https://audit.example.com/hook")


@case("Feed", "a proxy drops the WebSocket's `Upgrade`", FAILED, "--feed_transport=sse")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        feed.answer(404, b"", path=SOCKET)
        yield lambda: check_socket(reading(feed, place))


@case("Feed", "all five WebSockets of the account are open", WARNING, "all five stream slots")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as feed:
        for _ in range(5):
            assert feed.socket_slots.acquire(PRACTICE_DEVELOPER)
        yield lambda: check_socket(reading(feed, place))


# This machine


def machine(place: Place, *flags: str) -> Try:
    given = [f"--state_dir={place.directory / 'state'}", "--feed_api_key=env:KEY"]
    settings = parse([*given, f"--files_dir={place.directory / 'out'}", *flags], {"KEY": "gx-for-nobody"})
    return lambda: check_machine(settings)


@case("This machine", "another program has the port of the status page", FAILED, "--status_port")
def _(place: Place) -> Iterator[Try]:
    with PracticeFeed() as other:
        yield machine(place, f"--status_port={other.port}")


@case("This machine", "`--journal_max_bytes` is more than the disk has", WARNING, "--journal_max_bytes")
def _(place: Place) -> Iterator[Try]:
    yield machine(place, "--status_port=0", "--journal_max_bytes=1000000GiB")


@case("This machine", "a secret in AWS Secrets Manager is not there", FAILED, "ResourceNotFoundException")
def _(place: Place) -> Iterator[Try]:
    server: moto.Moto = place.server("moto_server")
    place.aws("nobody", "nothing-to-see")
    place.environment.setenv("AWS_DEFAULT_REGION", moto.REGION)
    place.environment.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.url)
    with moto.no_questions(server.url):
        yield lambda: check_secret(AwsSecret("hec-token"), USUAL)


# Splunk


def splunk(server: PracticeSplunk, place: Place, **more: Any) -> Splunk:
    return Splunk(server.url, place.secret(server.token), **more)


@case("Splunk", "the HEC token", FAILED, "--splunk_hec_token")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        made = splunk(server, place)
        server.rotate("another")
        yield made.check


@case("Splunk", "the HEC token is disabled", FAILED, "--splunk_hec_token")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        server.tokens[0].disabled = True
        yield splunk(server, place).check


@case("Splunk", "the index", FAILED, "--splunk_index")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        yield splunk(server, place, index="audit").check


@case("Splunk", "an index of `--splunk_index_by_type`", FAILED, "'audit'")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        yield splunk(server, place, index_by_type=("grant.*=audit",)).check


@case("Splunk", "the index is not allowed for the token", FAILED, "allow it for the token")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk(indexes=("main", "audit")) as server:
        server.tokens[0].indexes = ["main"]
        yield splunk(server, place, index="audit").check


@case("Splunk", "the token has acknowledgement, the settings have not", FAILED, "--splunk_acknowledge=true")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk(ack_seconds=0.0) as server:
        yield splunk(server, place).check


@case("Splunk", "the settings have acknowledgement, the token has not", FAILED, "useACK")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        yield splunk(server, place, acknowledge=True).check


@case("Splunk", "its queues are full", UNKNOWN, "busy")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        server.busy(18)
        yield splunk(server, place).check


@case("Splunk", "its URL is the web page's", FAILED, "correct its URL")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk() as server:
        yield replace(splunk(server, place), url=f"{server.url}/en-US").check


@case("Splunk", "the certificate authority", FAILED, "--ca_file")
def _(place: Place) -> Iterator[Try]:
    with PracticeSplunk(tls=place.tls()[0]) as server:
        yield splunk(server, place).check


@case("Splunk", "the proxy is not there", UNKNOWN, "no connection through the proxy")
def _(place: Place) -> Iterator[Try]:
    way = WayOut(http_proxy=parse_proxy(f"http://127.0.0.1:{free_port()}"))
    yield Splunk("https://splunk.test:8088", place.secret("hec-for-nobody"), way_out=way).check


@case("Splunk", "the proxy wants a sign-in", FAILED, "user and password")
def _(place: Place) -> Iterator[Try]:
    way = signed_in(place)
    yield Splunk("https://splunk.test:8088", place.secret("hec-for-nobody"), way_out=way).check


# Datadog


@case("Datadog", "the API key", FAILED, "key")
def _(place: Place) -> Iterator[Try]:
    with PracticeDatadog() as server:
        made = Datadog(place.secret(server.key), endpoint=server.url)
        server.rotate("another")
        yield made.check


@case("Datadog", "a firewall's page in the place of the intake", FAILED, "firewall")
def _(place: Place) -> Iterator[Try]:
    with PracticeDatadog() as server:
        server.answer(403, b"<html><title>Blocked</title></html>", path="/api/v2/logs")
        yield Datadog(place.secret(server.key), endpoint=server.url).check


@case("Datadog", "the certificate authority", FAILED, "--ca_file")
def _(place: Place) -> Iterator[Try]:
    with PracticeDatadog(tls=place.tls()[0]) as server:
        yield Datadog(place.secret(server.key), endpoint=server.url).check


# S3


@contextlib.contextmanager
def practice_s3(place: Place) -> Iterator[tuple[PracticeS3, S3]]:
    with PracticeS3() as server:
        place.aws(server.access_key, server.secret_key)
        yield server, S3(server.bucket, endpoint=server.url)


def s3_says(code: str, message: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()


@case("S3", "the access key", FAILED, "access key")
def _(place: Place) -> Iterator[Try]:
    seaweedfs = place.server("seaweedfs")
    seaweedfs.client().create_bucket(Bucket="check-key")
    place.aws("somebody-else", seaweedfs.secret_key)
    yield S3("check-key", endpoint=seaweedfs.endpoint).check


@case("S3", "the secret key", FAILED, "secret key")
def _(place: Place) -> Iterator[Try]:
    seaweedfs = place.server("seaweedfs")
    place.aws(seaweedfs.access_key, "of-somebody-else")
    yield S3("check-key", endpoint=seaweedfs.endpoint).check


@case("S3", "the credentials may only read", FAILED, "s3:PutObject")
def _(place: Place) -> Iterator[Try]:
    seaweedfs = place.server("seaweedfs")
    seaweedfs.client().create_bucket(Bucket="check-rights")
    place.aws(seaweedfs.reader_key, seaweedfs.secret_key)
    yield S3("check-rights", endpoint=seaweedfs.endpoint).check


@case("S3", "no credentials at all", FAILED, "~/.aws")
def _(place: Place) -> Iterator[Try]:
    place.environment.delenv("AWS_ACCESS_KEY_ID", raising=False)
    place.environment.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with PracticeS3() as server:
        yield S3(server.bucket, endpoint=server.url).check


@case("S3", "the bucket", FAILED, "--s3_bucket")
def _(place: Place) -> Iterator[Try]:
    with practice_s3(place) as (_, made):
        yield replace(made, bucket="nowhere").check


@case("S3", "the region", FAILED, "--s3_region")
def _(place: Place) -> Iterator[Try]:
    with practice_s3(place) as (server, made):
        server.answer(
            400, s3_says("AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong"), times=3
        )
        yield made.check


@case("S3", "this machine's clock", FAILED, "set the clock")
def _(place: Place) -> Iterator[Try]:
    with practice_s3(place) as (server, made):
        server.refuse("RequestTimeTooSkewed")
        yield made.check


@case("S3", "the KMS key may not be used", FAILED, "kms:GenerateDataKey")
def _(place: Place) -> Iterator[Try]:
    with practice_s3(place) as (server, made):
        server.answer(403, s3_says("AccessDenied", "not authorized to perform: kms:GenerateDataKey"))
        yield replace(made, kms_key="alias/archive").check


@case("S3", "the role's external id", FAILED, "--s3_external_id")
def _(place: Place) -> Iterator[Try]:
    server: moto.Moto = place.server("moto_server")
    place.aws(server.access_key, server.secret_key)
    place.environment.setenv("AWS_ENDPOINT_URL_STS", server.url)
    made = S3(moto.BUCKET, endpoint=server.url, role_arn=moto.ROLE, external_id="not-what-was-asked-for")
    yield made.check


@case("S3", "the certificate authority", FAILED, "--ca_file")
def _(place: Place) -> Iterator[Try]:
    place.aws("practice", "practice-secret")
    with PracticeS3(tls=place.tls()[0]) as server:
        yield S3(server.bucket, endpoint=server.url).check


@case("S3", "nothing listens at its endpoint", UNKNOWN, "cannot be reached")
def _(place: Place) -> Iterator[Try]:
    place.aws("practice", "practice-secret")
    yield S3("archive", endpoint=f"http://127.0.0.1:{free_port()}").check


# Google Cloud Storage


@case("Google Cloud Storage", "the bucket", FAILED, "--gcs_bucket")
def _(place: Place) -> Iterator[Try]:
    with PracticeGCS() as server:
        yield GCS("nowhere", endpoint=server.url).check


@case("Google Cloud Storage", "the right to create objects", FAILED, "roles/storage.objectCreator")
def _(place: Place) -> Iterator[Try]:
    with PracticeGCS() as server:
        server.rights = set()
        yield GCS(server.bucket, endpoint=server.url).check


@case("Google Cloud Storage", "no credentials at all", FAILED, "GOOGLE_APPLICATION_CREDENTIALS")
def _(place: Place) -> Iterator[Try]:
    place.environment.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(place.directory / "none.json"))
    with PracticeGCS(tls=place.tls()[0]) as server:
        yield GCS(server.bucket, endpoint=server.url).check


# BigQuery


def bigquery(emulator: Emulator, table: str, **more: Any) -> BigQuery:
    return BigQuery(f"{PROJECT}.{table}", endpoint=emulator.rest, storage_endpoint=emulator.storage, **more)


@case("BigQuery", "the dataset", FAILED, "bq --location=EU mk --dataset")
def _(place: Place) -> Iterator[Try]:
    yield bigquery(place.server("emulator"), "nowhere.events").check


@case("BigQuery", "the table is not there yet", WARNING, "provision bigquery")
def _(place: Place) -> Iterator[Try]:
    yield bigquery(place.server("emulator"), "events.not_yet").check


@case("BigQuery", "the table has other columns", FAILED, "--bigquery_schema=compatible")
def _(place: Place) -> Iterator[Try]:
    emulator: Emulator = place.server("emulator")
    with contextlib.closing(bigquery(emulator, "events.check_columns", schema="compatible").open()) as writer:
        assert writer._rest.ready("it", 0) is None  # type: ignore[attr-defined]
    yield bigquery(emulator, "events.check_columns").check


@contextlib.contextmanager
def practice_bigquery(method: str) -> Iterator[tuple[PracticeBigQuery, BigQuery]]:
    with PracticeBigQuery() as server:
        made = BigQuery(
            f"{server.project}.{server.dataset}.events",
            method,  # type: ignore[arg-type]
            endpoint=server.url,
            storage_endpoint=server.storage_url,
        )
        with contextlib.closing(made.open()) as writer:
            assert writer._rest.ready("it", 0) is None  # type: ignore[attr-defined]
        yield server, made


@case("BigQuery", "the right to append", FAILED, "roles/bigquery.dataEditor")
def _(place: Place) -> Iterator[Try]:
    with practice_bigquery("storage_write") as (server, made):
        server.storage.may_append = False
        yield made.check


@case("BigQuery", "the right to insert (insert_all)", FAILED, "roles/bigquery.dataEditor")
def _(place: Place) -> Iterator[Try]:
    said = {
        "code": 403,
        "message": "Access Denied: tables.updateData",
        "errors": [{"reason": "accessDenied"}],
    }
    with practice_bigquery("insert_all") as (server, made):
        server.answer(403, json.dumps({"error": said}).encode(), path="/insertAll")
        yield made.check


@case("BigQuery", "the Storage Write endpoint", UNKNOWN, "UNAVAILABLE")
def _(place: Place) -> Iterator[Try]:
    with practice_bigquery("storage_write") as (_, made):
        yield replace(made, storage_endpoint=f"http://127.0.0.1:{free_port()}").check


# Kafka


def topic(broker: KafkaServer, name: str, **config: str) -> str:
    if name not in broker._admin().list_topics(timeout=10).topics:
        broker.create_topic(name, **config)
    return name


def sasl(place: Place, user: str = USER, password: str = PASSWORD) -> dict[str, str]:
    place.secrets.append(password)
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": user,
        "sasl.password": password,
    }


@case("Kafka", "the topic", FAILED, "--kafka_topic")
def _(place: Place) -> Iterator[Try]:
    yield Kafka(place.server("broker").servers, "check-nowhere").check


@case("Kafka", "the password", FAILED, "sasl.mechanism")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    yield Kafka(broker.sasl_servers, topic(broker, "check"), sasl(place, password="wrong-pass-word")).check


@case("Kafka", "no ACL at all", FAILED, "grant Write")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    yield Kafka(broker.sasl_servers, topic(broker, "check"), sasl(place, GUEST)).check


@case("Kafka", "an ACL that lets us read, not write", FAILED, "grant Write")
def _(place: Place) -> Iterator[Try]:
    broker: KafkaServer = place.server("broker")
    name = topic(broker, "check-read-only")
    broker.grant(GUEST, name, "READ")
    yield Kafka(broker.sasl_servers, name, sasl(place, GUEST)).check


@case("Kafka", "the certificate authority", FAILED, "--ca_file")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    config = {**sasl(place), "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512"}
    yield Kafka(broker.sasl_ssl_servers, topic(broker, "check"), config).check


@case("Kafka", "`security.protocol` is left out", UNKNOWN, "security.protocol")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    place.environment.setattr("transforms.write.kafka.writer.LOOK_SECONDS", 1.0)
    yield Kafka(broker.sasl_ssl_servers, topic(broker, "check")).check


@case("Kafka", "the topic's `max.message.bytes` is less than we send", WARNING, "max.message.bytes")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    yield Kafka(broker.servers, topic(broker, "check-small", max_message_bytes="50000")).check


@case("Kafka", "the topic's `retention.ms` is an hour", WARNING, "retention.ms")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    yield Kafka(broker.servers, topic(broker, "check-short", retention_ms="3600000")).check


@case("Kafka", "`min.insync.replicas` is more than there are", FAILED, "min.insync.replicas")
def _(place: Place) -> Iterator[Try]:
    broker = place.server("broker")
    yield Kafka(broker.servers, topic(broker, "check-replicas", min_insync_replicas="2")).check


# Pub/Sub


@case("Pub/Sub", "the topic", FAILED, "--pubsub_topic")
def _(place: Place) -> Iterator[Try]:
    server: PubSubServer = place.server("pubsub_server")
    yield PubSub("projects/my-project/topics/nowhere", server.endpoint).check


@case("Pub/Sub", "the right to publish", FAILED, "roles/pubsub.publisher")
def _(place: Place) -> Iterator[Try]:
    """Google's fake knows no rights."""

    def none(request: Any, context: Any) -> Any:
        return iam_policy_pb2.TestIamPermissionsResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        none,
        iam_policy_pb2.TestIamPermissionsRequest.FromString,
        iam_policy_pb2.TestIamPermissionsResponse.SerializeToString,
    )
    methods = grpc.method_handlers_generic_handler("google.iam.v1.IAMPolicy", {"TestIamPermissions": handler})
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield PubSub("projects/my-project/topics/events", f"http://127.0.0.1:{port}").check
    finally:
        server.stop(None)


# Files


@case("Files", "a part of the path is a file", FAILED, "--files_dir")
def _(place: Place) -> Iterator[Try]:
    (place.directory / "file").touch()
    yield Files(str(place.directory / "file" / "out")).check


@case("Files", "the disk is full", FAILED, "make room")
def _(place: Place) -> Iterator[Try]:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    place.environment.setattr("os.fsync", full)
    yield Files(str(place.directory)).check
