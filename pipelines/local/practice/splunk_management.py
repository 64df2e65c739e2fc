"""The management port of a practice Splunk: as much of splunkd's REST as splunk-sdk needs to set HEC up.

Signing in, the server's information, indexes, HEC tokens and saved searches, in Atom, as in Splunk's REST API
reference. What is made here holds for the practice HEC that it belongs to.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import uuid
from collections.abc import Sequence
from urllib.parse import parse_qs, unquote, unquote_plus

from pipelines.local.practice import http_server
from pipelines.local.practice.atom import Entry, feed, message
from pipelines.local.practice.http_wire import Answer, Request
from pipelines.local.practice.splunk import PracticeSplunk
from pipelines.local.practice.splunk_collections import (
    Bad,
    Collection,
    HecTokens,
    Indexes,
    SavedSearches,
)

USER = "admin"
PASSWORD = "practice-password"  # noqa: S105 (of a practice server on loopback)
VERSION = "9.3.0"
LOGIN = "auth/login"
INFO = "server/info"
# /services/data/indexes/main and /servicesNS/<owner>/<app>/data/indexes/main are the same here.
ROOT = re.compile(r"/(?:services|servicesNS/[^/]*/[^/]*)/(.*?)/*")
DEFAULT_COUNT = 30  # of entries that are listed when nobody says how many; 0 is all
NEW, FOUND, GONE = "create", "read", "delete"


class PracticeSplunkManagement(http_server.PracticeServer):
    """A context manager that serves the management port of `splunk` on `url` until it is left.

    bearer: an authentication token that works without signing in.
    """

    def __init__(
        self,
        splunk: PracticeSplunk,
        port: int = 0,
        *,
        user: str = USER,
        password: str = PASSWORD,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, tls=tls)
        self.bearer = uuid.uuid4().hex
        self._user, self._password = user, password
        self._sessions: set[str] = set()
        collections: Sequence[Collection] = (Indexes(splunk), HecTokens(splunk), SavedSearches())
        self._collections = {each.path: each for each in collections}

    def judge(self, request: Request) -> Answer:
        found = ROOT.fullmatch(request.path)
        path = found[1] if found else ""
        if path == LOGIN:
            return self._sign_in(request)
        if not self._is_signed_in(request):
            return Answer(401, message("call not properly authenticated", "WARN"))
        try:
            with self._changed:
                return self._answer(request, path)
        except Bad as bad:
            return Answer(bad.status, message(str(bad)))

    def _sign_in(self, request: Request) -> Answer:
        form = parse_qs(request.body.decode())
        if (form.get("username"), form.get("password")) != ([self._user], [self._password]):
            return Answer(401, message("Login failed", "WARN"))
        key = uuid.uuid4().hex
        self._sessions.add(key)
        return Answer(
            200,
            f"<response><sessionKey>{key}</sessionKey></response>".encode(),
            (("Set-Cookie", f"splunkd_{self._port}={key}; Path=/; HttpOnly"),) if "cookie" in form else (),
        )

    def _is_signed_in(self, request: Request) -> bool:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme == "Splunk":
            return given in self._sessions
        if scheme == "Bearer":
            return given == self.bearer
        if scheme == "Basic":
            try:
                return base64.b64decode(given, validate=True).decode() == f"{self._user}:{self._password}"
            except (binascii.Error, UnicodeDecodeError):
                return False
        cookie = re.search(r"splunkd_\d+=(\w+)", request.headers.get("cookie", ""))
        return bool(cookie and cookie[1] in self._sessions)

    def _answer(self, request: Request, path: str) -> Answer:
        if path == INFO:
            return Answer(200, feed(INFO, [Entry("server-info", {"version": VERSION})], 1))
        for root, collection in self._collections.items():
            if path == root:
                return self._whole(request, collection)
            if path.startswith(f"{root}/"):
                name, _, action = path.removeprefix(f"{root}/").partition("/")
                return self._one(request, collection, collection.named(unquote(unquote_plus(name))), action)
        raise Bad(404, "Not Found")

    def _whole(self, request: Request, collection: Collection) -> Answer:
        if request.method == "POST":
            form = _form(request.body)
            name = form.pop("name", [""])[0]
            title = collection.named(name)
            if not name:
                raise Bad(400, "Cannot perform action POST without a target name to act on.")
            if any(entry.title == title for entry in collection.entries()):
                raise Bad(409, f"Unable to create {title}: an object with this name already exists")
            collection.create(name, form)
            return self._shown(collection, title, 201)
        entries = collection.entries()
        query = parse_qs(request.query)
        offset, count = int(query.get("offset", ["0"])[0]), int(query.get("count", [str(DEFAULT_COUNT)])[0])
        listed = entries[offset:] if count <= 0 else entries[offset : offset + count]
        return Answer(200, feed(collection.path, listed, len(entries)))

    def _one(self, request: Request, collection: Collection, title: str, action: str) -> Answer:
        if not any(entry.title == title for entry in collection.entries()):
            raise Bad(404, f"Could not find object id={title}")
        if action in ("enable", "disable") and request.method == "POST":
            collection.update(title, {"disabled": [str(int(action == "disable"))]})
        elif action:
            raise Bad(404, "Not Found")
        elif request.method == "DELETE":
            collection.delete(title)
            return Answer(200, feed(collection.path, (), 0))
        elif request.method == "POST":
            collection.update(title, _form(request.body))
        return self._shown(collection, title, 200)

    def _shown(self, collection: Collection, title: str, status: int) -> Answer:
        entry = next(entry for entry in collection.entries() if entry.title == title)
        return Answer(status, feed(collection.path, [entry], 1))


def _form(body: bytes) -> dict[str, list[str]]:
    return parse_qs(body.decode(), keep_blank_values=True)
