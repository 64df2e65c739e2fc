"""Google's services as all its destinations share them: channel, HTTP, access token, status codes."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec

from transforms.proxies import ProxyError, host_and_port
from transforms.secret import SecretError, shown
from transforms.way_out import USUAL, WayOut
from transforms.write.advice import GOOGLE
from transforms.write.answer import decoded
from transforms.write.contract import Outcome
from transforms.write.failure import failed
from transforms.write.over_http.connection import CLOSED, HttpConnection, Reply, Target, user_agent

# google.rpc.Code
OK, CANCELLED, INVALID_ARGUMENT, DEADLINE_EXCEEDED, NOT_FOUND, ALREADY_EXISTS = 0, 1, 3, 4, 5, 6
PERMISSION_DENIED, RESOURCE_EXHAUSTED, FAILED_PRECONDITION, OUT_OF_RANGE, UNIMPLEMENTED = 7, 8, 9, 11, 12
UNAUTHENTICATED = 16
NAMES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND",
    6: "ALREADY_EXISTS", 7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION",
    10: "ABORTED", 11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE",
    15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
TOO_LARGE = ("too large", "larger than max", "size cap", "payload size exceeds", "size limit")
MOST_SAID = 300
# What Google's libraries raise over an answer that has another shape than they expect.
FOREIGN = (KeyError, IndexError, TypeError, ValueError, AttributeError, RecursionError)


def storage_client(**arguments: Any) -> Any:
    """Google's own client of Cloud Storage, which reads what it is told to and no more.

    Left to itself (google-cloud-storage 3.17) it asks for the bucket's metadata as well, from a thread of its
    own for up to two minutes, for traces that nobody takes: refused to whoever may only read objects.
    """
    from google.cloud.storage import Client  # type: ignore[import-untyped]  # half a second

    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    return Client(**arguments)


def said(message: str) -> str:
    """A service's own words, short and printable, without what we know to be secret."""
    return shown(message, MOST_SAID) or "no text"


def is_too_large(message: str) -> bool:
    lower = message.lower()
    return any(words in lower for words in TOO_LARGE)


# gRPC

# gRPC's core writes to stderr by itself, past every log format, and calls a GOAWAY worth it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def channel(endpoint: str, way_out: WayOut) -> Any:
    """A channel to the service at `endpoint`, a URL; http:// is unencrypted, for emulators.

    Raises OSError when an authority cannot be read, ProxyError for a proxy that is none.
    """
    import grpc  # type: ignore[import-untyped]

    options = [
        ("grpc.enable_retries", 0),  # the outbox does that
        # Writers are closed one by one, each with its own connection.
        ("grpc.use_local_subchannel_pool", 1),
        # gRPC's own back-off goes up to 2 minutes, in which it fails calls without trying.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 2000),
        ("grpc.max_receive_message_length", 16 * 1024 * 1024),
        ("grpc.primary_user_agent", user_agent()),
        *way_out.grpc_options(endpoint),
    ]
    parts = urlsplit(endpoint)
    secure = parts.scheme != "http"
    # A certificate's names are without the dot that may end a full one.
    target = host_and_port((parts.hostname or "").rstrip("."), parts.port or (443 if secure else 80))
    if not secure:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(way_out.roots()), options=options)


# HTTP


class Fault(msgspec.Struct, frozen=True):
    reason: str = ""
    message: str = ""
    location: str = ""


class RestError(msgspec.Struct, frozen=True):
    """Google's own words in a refusal."""

    message: str = ""
    errors: Sequence[Fault] = ()


class _ErrorReply(msgspec.Struct, frozen=True):
    error: RestError = RestError()


_error_decoder = msgspec.json.Decoder(_ErrorReply)


def rest_error(body: bytes) -> RestError:
    """Google's own words in a refusal; empty when a proxy (or nobody) wrote this body."""
    reply = decoded(_error_decoder.decode, body)
    return RestError() if reply is None else reply.error


class GoogleHttp:
    """What Google's own libraries send their requests through, in place of `requests`: our connections, so
    that authorities and time-outs are those of every destination and `close`, from any thread, ends a
    request that hangs. One kept connection a host; redirects are not followed.

    Raises OSError when an authority cannot be read.
    """

    def __init__(self, way_out: WayOut = USUAL) -> None:
        way_out.roots()  # here, where the settings are known to be to blame
        # A client certificate is for services of the user's own.
        self._way_out = replace(way_out, client_certificate=None, client_key=None)
        self._lock = threading.Lock()
        self._connections: dict[tuple[str, float | None], HttpConnection] = {}
        self._closed = False

    def send(
        self, method: str, url: str, headers: Mapping[str, Any], body: bytes, seconds: float | None
    ) -> Reply:
        """One request. seconds: as of HttpConnection. Raises httpx.TransportError when no answer came,
        and SecretError for a proxy's password."""
        parts = httpx.URL(url)
        root = f"{parts.scheme}://{parts.netloc.decode()}"
        with self._lock:
            if self._closed:
                raise httpx.ConnectError(CLOSED)
            connection = self._connections.get((root, seconds))
            if connection is None:
                connection = self._connections[root, seconds] = self._connect(root, seconds)
        # Compressed answers are no use here: they are short, and whatever stands in between could cut them.
        kept = {name: str(value) for name, value in headers.items() if name.lower() != "accept-encoding"}
        return connection.post(body, Target(parts.raw_path, kept, method))

    def _connect(self, root: str, seconds: float | None) -> HttpConnection:
        try:
            return HttpConnection(root, {}, self._way_out, seconds)
        except ProxyError as error:
            raise httpx.ProxyError(str(error)) from error

    def close(self) -> None:
        """Let go; a request that hangs in another thread fails at once."""
        with self._lock:
            self._closed = True
            connections = list(self._connections.values())
        for connection in connections:
            connection.close()


# Access tokens

CLOUD = "https://www.googleapis.com/auth/cloud-platform"
BIGQUERY = "https://www.googleapis.com/auth/bigquery"
PUBSUB = "https://www.googleapis.com/auth/pubsub"
# Reading credentials asks a metadata server, or Google's token service, over HTTP.
TOKEN_SECONDS = 10.0


class GoogleToken:
    """An access token of the application default credentials, read where the writer runs and renewed when it
    is about to expire; `anonymous` has none, for emulators."""

    def __init__(self, anonymous: bool = False, scope: str = BIGQUERY, way_out: WayOut = USUAL) -> None:
        self._anonymous = anonymous
        self._scope = scope
        self._http = GoogleHttp(way_out)
        self._credentials: Any = None

    def headers(self) -> dict[str, str]:
        """What proves who we are, names in lower case. Raises google.auth.exceptions.GoogleAuthError."""
        if self._anonymous:
            return {}
        credentials = self.credentials()
        headers = {"authorization": f"Bearer {credentials.token}"}
        if quota_project := getattr(credentials, "quota_project_id", None):
            headers["x-goog-user-project"] = str(quota_project)
        return headers

    def credentials(self) -> Any:
        """google-auth's own, with a token that is good. Raises google.auth.exceptions.GoogleAuthError."""
        from google.auth.exceptions import RefreshError, TransportError

        try:
            self._renew()
        except RefreshError:
            self.forget()  # somebody may replace the key
            raise
        except FOREIGN as odd:  # a proxy's page, say, in place of the service's answer
            raise TransportError(f"no answer of the token service's ({type(odd).__name__})") from odd
        return self._credentials

    def _renew(self) -> None:
        from google.auth import default

        request: Any = self._request
        if self._credentials is None:
            self._credentials, _ = default(scopes=(self._scope,), request=request)
        if not self._credentials.valid:
            self._credentials.refresh(request)

    def forget(self) -> None:
        """The token was refused: read the credentials again before the next use."""
        self._credentials = None

    def close(self) -> None:
        """Let go; whoever waits for a token in another thread gets none, at once."""
        self._http.close()

    def _request(
        self,
        url: str,
        method: str = "GET",
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Any:
        """As google.auth.transport.Request: the answer has `status`, `headers` and `data`."""
        from google.auth.exceptions import TransportError

        sent = body.encode() if isinstance(body, str) else body or b""
        seconds = min(timeout or TOKEN_SECONDS, TOKEN_SECONDS)
        try:
            reply = self._http.send(method, url, headers or {}, sent, seconds)
        except (httpx.TransportError, OSError, SecretError) as error:
            raise TransportError(error) from error
        return _TokenReply(reply)


class _TokenReply:
    def __init__(self, reply: Reply) -> None:
        self.status, self.headers, self.data = reply.status, reply.headers, reply.body


def is_passing(error: Exception) -> bool:
    """Whether a GoogleAuthError may heal by itself: the service is away, or says so."""
    from google.auth.exceptions import TransportError

    return isinstance(error, TransportError) or getattr(error, "retryable", False)


def token_outcome(error: Exception, count: int, where: str) -> Outcome:
    """What a GoogleAuthError means for a batch of `count` events."""
    if is_passing(error):
        return failed(where, GOOGLE["token_service"], range(count), shown(str(error)))
    return failed(where, GOOGLE["no_token"], range(count), type(error).__name__)
