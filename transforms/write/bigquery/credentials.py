"""Google's access tokens: the application default credentials, read where the writer runs."""

from __future__ import annotations

from typing import Any

from transforms.write.contract import Outcome
from transforms.write.over_http.outcome import KEPT

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
