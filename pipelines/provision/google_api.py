"""Google's JSON APIs as `provision` asks them: what is there, what is made, and what a refusal asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx

from pipelines.provision.plan import CannotProvision, Refused, unreachable
from transforms.proxies import ProxyError
from transforms.secret import SecretError, shown
from transforms.way_out import WayOut
from transforms.write.google import CLOUD, GoogleHttp, GoogleToken, rest_error, said
from transforms.write.over_http.reply import Reply

SECONDS = 30.0
LOGIN = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of a "
    "service account"
)

# The member that a right is given to, for a person to put their own in.
WHO = "serviceAccount:NAME@PROJECT.iam.gserviceaccount.com"


class GoogleApi:
    """One service, asked with the application default credentials. Raises CannotProvision, also of `ask`.

    root: of the API, "https://bigquery.googleapis.com/bigquery/v2"; http:// is an emulator, which asks for
    no credentials. roles: those that may do what is asked for, in a person's words.
    """

    def __init__(self, root: str, roles: str, way_out: WayOut) -> None:
        self.root, self._roles = root, roles
        try:
            self._http = GoogleHttp(way_out)
            self._token = GoogleToken(root.startswith("http://"), CLOUD, way_out)
        except OSError as error:
            raise CannotProvision(way_out.fault(error), bad=True) from None

    def get(self, path: str) -> dict[str, Any] | None:
        """What is at `path`, None when nothing is."""
        reply = self._send("GET", path, None)
        return None if reply.status == 404 else self._read(reply)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request that makes or changes something. Raises Refused for a refusal."""
        return self._read(self._send(method, path, body))

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> Reply:
        from google.auth.exceptions import GoogleAuthError

        content = b"" if body is None else json.dumps(body).encode()
        try:
            headers = {**self._token.headers(), "Content-Type": "application/json"}
            return self._http.send(method, self.root + path, headers, content, SECONDS)
        except GoogleAuthError as error:
            raise CannotProvision(
                f"Google's credentials cannot be read ({shown(str(error))}): {LOGIN}"
            ) from None
        except (httpx.TransportError, OSError, SecretError, ProxyError) as error:
            raise unreachable(self.root, error) from None

    def _read(self, reply: Reply) -> dict[str, Any]:
        if 200 <= reply.status < 300:
            try:
                found = json.loads(reply.body or b"{}")
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
            raise CannotProvision(f"{self.root} answered {reply.status} with what is no answer of Google's")
        raise self._refused(reply)

    def _refused(self, reply: Reply) -> CannotProvision:
        words = said(rest_error(reply.body).message)
        if reply.status == 401:
            return CannotProvision(f"{self.root} refused the credentials ({words}): {LOGIN}")
        if reply.status == 403:
            return Refused(f"these credentials may not ({words}): they need {self._roles}")
        return Refused(f"{self.root} answered {reply.status}: {words}")


def part(text: str) -> str:
    """A name as a part of a path."""
    return quote(text, safe="")
