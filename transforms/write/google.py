"""Google's access tokens: the application default credentials, read where the writer runs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]

from transforms.way_out import WayOut
from transforms.write.contract import Outcome
from transforms.write.failure import KEPT
from transforms.write.over_http.connection import user_agent

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


def said(message: str) -> str:
    """A service's own words, short and printable."""
    return "".join(letter for letter in message[:300] if letter.isprintable()) or "no text"


def is_too_large(message: str) -> bool:
    lower = message.lower()
    return any(words in lower for words in TOO_LARGE)


BIGQUERY = "https://www.googleapis.com/auth/bigquery"
PUBSUB = "https://www.googleapis.com/auth/pubsub"
# Reading credentials asks a metadata server, or Google's token service, over HTTP.
TOKEN_SECONDS = 10.0


class GoogleToken:
    """An access token, renewed when it is about to expire; `anonymous` has none, for emulators."""

    def __init__(self, anonymous: bool = False, scope: str = BIGQUERY) -> None:
        self._anonymous = anonymous
        self._scope = scope
        self._credentials: Any = None

    def headers(self) -> dict[str, str]:
        """What proves who we are, names in lower case. Raises google.auth.exceptions.GoogleAuthError."""
        if self._anonymous:
            return {}
        from google.auth import default
        from google.auth.exceptions import RefreshError
        from google.auth.transport.requests import Request

        if self._credentials is None:
            self._credentials, _ = default(scopes=(self._scope,))
        if not self._credentials.valid:
            try:
                self._credentials.refresh(_limited(Request()))
            except RefreshError:
                self.forget()  # somebody may replace the key
                raise
        headers = {"authorization": f"Bearer {self._credentials.token}"}
        if quota_project := getattr(self._credentials, "quota_project_id", None):
            headers["x-goog-user-project"] = str(quota_project)
        return headers

    def forget(self) -> None:
        """The token was refused: read the credentials again before the next use."""
        self._credentials = None


def _limited(request: Any) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        return request(*args, **{**kwargs, "timeout": TOKEN_SECONDS})

    return call


def token_outcome(error: Exception, count: int, where: str) -> Outcome:
    """What a GoogleAuthError means for a batch of `count` events."""
    from google.auth.exceptions import TransportError

    if isinstance(error, TransportError) or getattr(error, "retryable", False):
        return Outcome(
            later=range(count), cause=f"{where}: Google's token service cannot be reached. {KEPT}."
        )
    cause = (
        f"{where}: Google gives no access token ({type(error).__name__}). {KEPT} when this is mended: set "
        "GOOGLE_APPLICATION_CREDENTIALS to a key file, run `gcloud auth application-default login`, or run "
        "with a service account that may write there."
    )
    return Outcome(later=range(count), cause=cause, blocked=True)


OPTIONS = [
    ("grpc.enable_retries", 0),  # the outbox does that
    # Writers are closed one by one, each with its own connection.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own back-off goes up to 2 minutes, in which it fails calls without trying.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.primary_user_agent", user_agent()),
]


def channel(endpoint: str, way_out: WayOut) -> Any:
    """A channel to the service at `endpoint`, a URL; http:// is unencrypted, for emulators.

    Raises OSError when an authority cannot be read, ProxyError for a proxy that is none.
    """
    parts = urlsplit(endpoint)
    secure = parts.scheme != "http"
    target = parts.netloc if parts.port else f"{parts.netloc}:{443 if secure else 80}"
    options = [*OPTIONS, *way_out.grpc_options(endpoint)]
    if not secure:
        return grpc.insecure_channel(target, options=options)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(way_out.roots()), options=options)
