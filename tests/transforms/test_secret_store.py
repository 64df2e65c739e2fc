"""New secrets in their place: once, for their owner alone, and never over another one."""

from __future__ import annotations

import json
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from transforms import secret as reading
from transforms import secret_store
from transforms.secret import (
    AwsSecret,
    EnvSecret,
    FileSecret,
    GoogleSecret,
    LiteralSecret,
    Secret,
    SecretError,
)
from transforms.secret_store import place

VALUE = "a-new-secret-for-nobody"


def test_a_file_is_free_until_something_is_put_there(tmp_path: Path) -> None:
    secret = FileSecret(str(tmp_path / "deep" / "down" / "secret"))
    store = place(secret)
    assert store.is_free()
    store.prepare()
    assert store.is_free()
    store.put(VALUE)
    assert not store.is_free()
    assert secret.read() == VALUE


def test_a_file_that_cannot_be_made_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = place(FileSecret(str(tmp_path / "file" / "secret")))
    with pytest.raises(SecretError, match=r"file:.*: Not a directory"):
        store.is_free()
    with pytest.raises(SecretError, match=r"file:.*: (Not a directory|File exists)"):
        store.prepare()


def test_looking_whether_it_can_be_filled_leaves_nothing_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    place(FileSecret(str(path))).prepare()
    assert not path.exists()
    path.write_text(VALUE)
    place(FileSecret(str(path))).prepare()
    assert path.read_text() == VALUE


@pytest.mark.parametrize(
    "secret",
    [
        EnvSecret("NAME"),
        LiteralSecret(VALUE),
        AwsSecret("name", "key"),
        GoogleSecret("projects/p/secrets/s/versions/3"),
    ],
)
def test_what_nothing_can_be_put_into_is_refused(secret: Secret) -> None:
    with pytest.raises(SecretError, match="cannot be put there; give file:PATH") as raised:
        place(secret)
    assert VALUE not in str(raised.value)


class SecretsManager(BaseHTTPRequestHandler):
    """AWS Secrets Manager's JSON protocol, as far as it is used."""

    secrets: dict[str, str | None]
    refuse = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        operation = self.headers["x-amz-target"].partition(".")[2]
        error = self.refuse or self._do(operation, asked)
        answer = (
            {"__type": error, "Message": "no"} if error else {"SecretString": self.secrets.get(_name(asked))}
        )
        body = json.dumps(answer).encode()
        self.send_response(400 if error else 200)
        self.send_header("content-type", "application/x-amz-json-1.1")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _do(self, operation: str, asked: dict[str, str]) -> str:
        name = _name(asked)
        if operation == "CreateSecret":
            self.secrets[name] = asked["SecretString"]
        elif name not in self.secrets or (operation == "GetSecretValue" and self.secrets[name] is None):
            return "ResourceNotFoundException"
        elif operation == "PutSecretValue":
            self.secrets[name] = asked["SecretString"]
        return ""

    def log_message(self, format: str, *args: object) -> None: ...


def _name(asked: dict[str, str]) -> str:
    return asked.get("SecretId") or asked["Name"]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[SecretsManager]]:
    handler = type("Handler", (SecretsManager,), {"secrets": {"empty": None, "full": "another"}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "practice")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "practice")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


def test_aws_secrets_are_made_or_given_their_first_value(aws: type[SecretsManager]) -> None:
    for name in ("none", "empty"):
        store = place(AwsSecret(name))
        assert store.is_free()
        store.prepare()
        store.put(VALUE)
        assert not store.is_free()
        assert AwsSecret(name).read() == VALUE
    assert not place(AwsSecret("full")).is_free()
    aws.refuse = "AccessDeniedException"
    store = place(AwsSecret("x"))
    for call in (store.is_free, store.prepare, lambda: store.put(VALUE)):
        with pytest.raises(
            SecretError, match=r"aws-secret:x: AWS Secrets Manager says AccessDeniedException"
        ) as raised:
            call()
        assert VALUE not in "".join(traceback.format_exception(raised.value))


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[bytes]]]:
    """Secret Manager's own protocol; its secrets by name, each a list of versions."""
    import grpc  # type: ignore[import-untyped]
    from google.cloud import secretmanager_v1 as api
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports

    secrets: dict[str, list[bytes]] = {
        "projects/p/secrets/empty": [],
        "projects/p/secrets/full": [b"another"],
    }

    def access(request: Any, context: Any) -> Any:
        versions = secrets.get(request.name.removesuffix("/versions/latest"))
        if not versions:
            context.abort(grpc.StatusCode.NOT_FOUND, "none")
            raise AssertionError
        return api.AccessSecretVersionResponse(payload={"data": versions[-1]})

    def create(request: Any, context: Any) -> Any:
        name = f"{request.parent}/secrets/{request.secret_id}"
        if request.secret_id == "forbidden":
            context.abort(grpc.StatusCode.PERMISSION_DENIED, "no")
        if name in secrets:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, "there")
        secrets[name] = []
        return api.Secret(name=name)

    def add(request: Any, context: Any) -> Any:
        if request.parent not in secrets:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no place for {request.payload.data!r}")
        secrets[request.parent].append(request.payload.data)
        return api.SecretVersion()

    methods: dict[str, tuple[Any, Any, Any]] = {
        "AccessSecretVersion": (access, api.AccessSecretVersionRequest, api.AccessSecretVersionResponse),
        "CreateSecret": (create, api.CreateSecretRequest, api.Secret),
        "AddSecretVersion": (add, api.AddSecretVersionRequest, api.SecretVersion),
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(call, asked.deserialize, answered.serialize)
        for name, (call, asked, answered) in methods.items()
    }
    server = grpc.server(ThreadPoolExecutor(1))
    service = "google.cloud.secretmanager.v1.SecretManagerService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()

    def client(_: object) -> tuple[Any, list[tuple[str, str]]]:
        channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        transport = transports.SecretManagerServiceGrpcTransport(channel=channel)
        return api.SecretManagerServiceClient(transport=transport), []

    for room in (reading, secret_store):
        monkeypatch.setattr(room, "google_client", client)
    yield secrets
    server.stop(None)


def test_google_secrets_are_made_or_given_their_first_version(google: dict[str, list[bytes]]) -> None:
    for name in ("none", "empty"):
        secret = GoogleSecret(f"projects/p/secrets/{name}")
        store = place(secret)
        assert store.is_free()
        store.prepare()
        store.put(VALUE)
        assert not store.is_free()
        assert secret.read() == VALUE
    assert not place(GoogleSecret("projects/p/secrets/full")).is_free()
    assert google["projects/p/secrets/full"] == [b"another"]
    with pytest.raises(SecretError, match=r"secret:projects/p/secrets/forbidden: .* says PermissionDenied"):
        place(GoogleSecret("projects/p/secrets/forbidden")).prepare()
    with pytest.raises(SecretError, match=r"secret:projects/p/secrets/gone: .* says NotFound") as raised:
        place(GoogleSecret("projects/p/secrets/gone")).put(VALUE)
    assert VALUE not in "".join(traceback.format_exception(raised.value))
