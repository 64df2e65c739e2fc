"""Secrets: what each reference reads, and that no value gets out by another way."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from transforms import secret as room
from transforms.secret import (
    AwsSecret,
    EnvSecret,
    FileSecret,
    GoogleSecret,
    LiteralSecret,
    SecretError,
    parse_secret,
    redact,
    remember,
    shown,
)

VALUE = "gx_live_Zx81-not-for-anyone"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("env:TOKEN", EnvSecret("TOKEN")),
        ("file:/run/secrets/token", FileSecret("/run/secrets/token")),
        ("secret:projects/p-1/secrets/hec", GoogleSecret("projects/p-1/secrets/hec")),
        ("secret:projects/p/secrets/s/versions/3", GoogleSecret("projects/p/secrets/s/versions/3")),
        ("aws-secret:prod/hec", AwsSecret("prod/hec")),
        ("aws-secret:prod/hec#token", AwsSecret("prod/hec", "token")),
        (VALUE, LiteralSecret(VALUE)),
        ("a:b", LiteralSecret("a:b")),
    ],
)
def test_a_reference_is_read_from_its_text_and_shows_it(text: str, expected: object) -> None:
    parsed = parse_secret(text)
    assert parsed == expected
    assert str(parsed) == (text if not isinstance(parsed, LiteralSecret) else "[secret]")
    assert repr(parsed) == str(parsed)


@pytest.mark.parametrize(
    "text",
    ["env:", "env:gx-live-9", "file:", "secret:hec", "secret:projects/p", "aws-secret:", "aws-secret:x y"],
)
def test_a_malformed_reference_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(SecretError, match="is not of the form") as raised:
        parse_secret(text)
    assert "gx-live-9" not in str(raised.value)


def test_env_is_read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = parse_secret("env:ROTATING_TOKEN")
    monkeypatch.setenv("ROTATING_TOKEN", "first-value")
    assert secret.read() == "first-value"
    monkeypatch.setenv("ROTATING_TOKEN", "second-value")
    assert secret.read() == "second-value"
    monkeypatch.delenv("ROTATING_TOKEN")
    with pytest.raises(SecretError, match="env:ROTATING_TOKEN: this environment variable is not set"):
        secret.read()


def test_a_value_in_the_place_of_a_variable_name_is_not_repeated() -> None:
    with pytest.raises(SecretError, match=r"without a \$") as raised:
        EnvSecret("gx_live_4f3e2d1c").read()
    assert "4f3e2d1c" not in str(raised.value)
    with pytest.raises(SecretError) as raised:
        FileSecret("gx_live_4f3e2d1c").read()
    assert "4f3e2d1c" not in str(raised.value)


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_a_file_is_read_each_time_without_its_line_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "token"
    secret = parse_secret(f"file:{path}")
    for value in ("first-value", "second-value"):
        path.write_text(value + ending, newline="")
        assert secret.read() == value


def test_a_file_that_cannot_be_a_secret_is_said_plainly(tmp_path: Path) -> None:
    path = tmp_path / "token"
    secret = FileSecret(str(path))
    with pytest.raises(SecretError, match="No such file"):
        secret.read()
    path.write_bytes(b"")
    with pytest.raises(SecretError, match="the value is empty"):
        secret.read()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SecretError, match="not text"):
        secret.read()
    path.write_bytes(b"x" * 65_537)
    with pytest.raises(SecretError, match="more than 65536 bytes"):
        secret.read()
    with pytest.raises(SecretError, match="Is a directory"):
        FileSecret(str(tmp_path)).read()


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("one-part\ntwo-part", "line break"),
        ("one-part\rtwo-part", "line break"),
        (" padded-value", "blank"),
        ("padded-value ", "blank"),
        ("caf\u00e9-value", "request header"),
        ("nul-\x00-value", "request header"),
        ("", "empty"),
    ],
)
def test_a_value_no_header_can_carry_is_refused_without_being_repeated(value: str, complaint: str) -> None:
    with pytest.raises(SecretError, match=complaint) as raised:
        EnvSecret("TOKEN").value_in({"TOKEN": value})
    assert "TOKEN" in str(raised.value)
    assert "part" not in str(raised.value)
    assert "-value" not in str(raised.value)


@pytest.mark.slow
def test_a_literal_lives_in_this_process_only() -> None:
    secret = LiteralSecret(VALUE)
    pickled = pickle.dumps(secret)
    assert VALUE.encode() not in pickled
    assert pickle.loads(pickled).read() == VALUE
    assert copy.deepcopy(secret).read() == VALUE
    elsewhere = subprocess.run(
        [sys.executable, "-c", "import pickle, sys; pickle.loads(sys.stdin.buffer.read())"],
        input=pickled,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert elsewhere.returncode == 1
    assert b"SecretError: a literal secret works only in the process it was given to" in elsewhere.stderr
    assert VALUE.encode() not in elsewhere.stderr


def test_references_pickle_as_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PICKLED_TOKEN", VALUE)
    secret = EnvSecret("PICKLED_TOKEN")
    secret.read()
    assert VALUE.encode() not in pickle.dumps(secret)
    for reference in (secret, FileSecret("/x"), GoogleSecret("projects/p/secrets/s"), AwsSecret("n", "k")):
        assert pickle.loads(pickle.dumps(reference)) == reference


def test_values_read_are_redacted_in_all_their_forms() -> None:
    LiteralSecret('pass"word\\1/+=').read()
    text = (
        'Authorization: Splunk pass"word\\1/+= and '
        + json.dumps('pass"word\\1/+=')
        + " ?t=pass%22word%5C1%2F%2B%3D"
    )
    assert redact(text) == 'Authorization: Splunk [secret] and "[secret]" ?t=[secret]'


def test_a_longer_value_goes_as_a_whole_and_a_short_one_spoils_no_words() -> None:
    for value in ("abcd-efgh", "abcd-efgh-ijkl", "ab"):
        LiteralSecret(value).read()
    assert redact("abcd-efgh-ijkl about abcd-efgh") == "[secret] about [secret]"


def test_the_values_remembered_are_bounded() -> None:
    for number in range(room.MAX_VALUES + 10):
        LiteralSecret(f"rotated-{number:05}").read()
    assert len(room._known) == room.MAX_VALUES
    assert redact(f"rotated-{room.MAX_VALUES + 9:05}") == "[secret]"


class SecretsManager(BaseHTTPRequestHandler):
    """AWS Secrets Manager's JSON protocol, for GetSecretValue."""

    secrets: ClassVar = {"prod/hec": VALUE, "prod/json": json.dumps({"token": VALUE, "n": 1})}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
        found = self.secrets.get(asked["SecretId"])
        status, answer = 200, {"Name": asked["SecretId"], "SecretString": found}
        if found is None:
            status, answer = 400, {"__type": "ResourceNotFoundException", "Message": "cannot find it"}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), SecretsManager)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{server.server_port}",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "practice",
        "AWS_SECRET_ACCESS_KEY": "practice",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    yield
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.usefixtures("aws")
def test_aws_secrets_are_read_whole_or_by_key() -> None:
    assert AwsSecret("prod/hec").read() == VALUE
    assert AwsSecret("prod/json", "token").read() == VALUE
    with pytest.raises(SecretError, match=r"aws-secret:prod/none: AWS .* ResourceNotFoundException"):
        AwsSecret("prod/none").read()
    for secret in (AwsSecret("prod/hec", "token"), AwsSecret("prod/json", "n"), AwsSecret("prod/json", "x")):
        with pytest.raises(SecretError, match="not a JSON object with text under that key") as raised:
            secret.read()
        assert VALUE not in str(raised.value)


def test_an_arn_says_its_region() -> None:
    assert (
        AwsSecret("arn:aws:secretsmanager:eu-north-1:123456789012:secret:hec-a1b2c3").region == "eu-north-1"
    )
    assert AwsSecret("prod/hec").region is None


def test_google_secrets_are_read_over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    import grpc  # type: ignore[import-untyped]
    from google.cloud.secretmanager_v1 import SecretManagerServiceClient
    from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
        SecretManagerServiceGrpcTransport,
    )
    from google.cloud.secretmanager_v1.types import AccessSecretVersionRequest, AccessSecretVersionResponse

    def access(
        request: AccessSecretVersionRequest, context: grpc.ServicerContext
    ) -> AccessSecretVersionResponse:
        if request.name != "projects/p/secrets/hec/versions/latest":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such secret")
        return AccessSecretVersionResponse(payload={"data": VALUE.encode() + b"\n"})

    method = grpc.unary_unary_rpc_method_handler(
        access, AccessSecretVersionRequest.deserialize, AccessSecretVersionResponse.serialize
    )
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(service, {"AccessSecretVersion": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def client(_: object) -> tuple[SecretManagerServiceClient, list[tuple[str, str]]]:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        made = SecretManagerServiceClient(transport=SecretManagerServiceGrpcTransport(channel=channel))
        return made, []

    monkeypatch.setattr(room, "google_client", client)
    try:
        assert GoogleSecret("projects/p/secrets/hec").read() == VALUE
        with pytest.raises(SecretError, match=r"secret:projects/p/secrets/none: .* says NotFound"):
            GoogleSecret("projects/p/secrets/none").read()
    finally:
        server.stop(None)


# What others say, as it is shown


SHOWN_SECRET = "tok-" + "abcdefghij" * 4


@pytest.mark.parametrize("before", [0, 1, 150, 159, 160, 190, 199, 200, 201, 4000, 4090, 4096, 4200, 10_000])
def test_a_cut_shows_no_part_of_a_secret(before: int) -> None:
    remember(SHOWN_SECRET)
    text = "x" * before + SHOWN_SECRET + "y" * 10_000
    assert "tok-" not in shown(text)
    assert len(shown(text)) <= 200


def test_many_echoes_of_a_secret_shrink_and_none_is_shown_in_part() -> None:
    remember(SHOWN_SECRET)
    for offset in range(50):
        assert "tok-" not in shown("x" * offset + SHOWN_SECRET * 5000)


def test_what_is_shown_is_one_printable_line() -> None:
    assert shown("a\r\nb\x1b[2J\x9b\u202e\u2028c\x00") == "ab[2Jc"
    remember(SHOWN_SECRET)
    assert shown(SHOWN_SECRET[:9] + "\n" + SHOWN_SECRET[9:]) == "[secret]"
