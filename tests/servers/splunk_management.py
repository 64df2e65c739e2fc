"""The management port of a practice Splunk: as much of splunkd's REST as splunk-sdk needs to set it up.

Signing in, the server's information, indexes, HEC and its tokens, and what apps hold (splunk_knowledge.py),
in Atom, as in Splunk's REST API reference. What is made here holds for the practice HEC that it belongs to.
There is one user who may do all, and one (LIMITED) who may only look.
"""

from __future__ import annotations

import base64
import binascii
import re
import ssl
import uuid
from collections.abc import Mapping, Sequence
from typing import Protocol
from urllib.parse import parse_qs, quote, unquote, unquote_plus
from xml.sax.saxutils import escape, quoteattr

from pipelines.practice import http_server
from pipelines.practice.hec import Token
from pipelines.practice.http_server import Answer, Request
from pipelines.practice.splunk import PracticeSplunk
from tests.servers.splunk_knowledge import Bad, Entry, Form, Stanzas, knowledge

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
SPACES = (
    'xmlns="http://www.w3.org/2005/Atom" xmlns:s="http://dev.splunk.com/ns/rest" '
    'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/"'
)
ACL = {"app": "search", "owner": "nobody", "sharing": "app", "modifiable": "1", "removable": "1"}


def feed(path: str, entries: Sequence[Entry], total: int) -> bytes:
    """The collection at `path` ("data/indexes"): these of `total` entries."""
    root = f"/services/{path}"
    parts = [
        f"{HEAD}<feed {SPACES}><title>{escape(path)}</title><id>{root}</id>",
        f'<link href="{root}/_new" rel="create"/><opensearch:totalResults>{total}</opensearch:totalResults>',
    ]
    parts += [_entry(path, entry) for entry in entries]
    return "".join([*parts, "</feed>"]).encode()


def message(text: str, kind: str = "ERROR") -> bytes:
    """What splunkd says of a refused request."""
    said = f'<msg type="{kind}">{escape(text)}</msg>'
    return f"{HEAD}<response><messages>{said}</messages></response>".encode()


def _entry(path: str, entry: Entry) -> str:
    slashes = entry.title.replace("/", "%2F")  # encoded twice, as splunkd does
    href = f"/servicesNS/{ACL['owner']}/{ACL['app']}/{path}/{quote(slashes, safe='')}"
    keys = "".join(_key(name, value) for name, value in entry.fields.items())
    access = "".join(_key(name, text) for name, text in ACL.items())
    acl = f'<s:key name="eai:acl"><s:dict>{access}</s:dict></s:key>'
    return (
        f"<entry><title>{escape(entry.title)}</title><id>{escape(href)}</id>"
        f'<updated>2026-03-01T12:00:00+00:00</updated><link href={quoteattr(href)} rel="alternate"/>'
        f'<content type="text/xml"><s:dict>{keys}{acl}</s:dict></content></entry>'
    )


def _key(name: str, value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        inside = escape(value)
    else:
        inside = "<s:list>" + "".join(f"<s:item>{escape(item)}</s:item>" for item in value) + "</s:list>"
    return f"<s:key name={quoteattr(name)}>{inside}</s:key>"


class Collection(Protocol):
    """Things with names. `create`, `update` and `delete` raise Bad."""

    path: str

    def entries(self) -> list[Entry]:
        """All of them."""

    def named(self, name: str) -> str:
        """The title of what a path calls `name`."""

    def create(self, name: str, form: Form) -> None:
        """Make another one."""

    def update(self, name: str, form: Form) -> None:
        """Change one that is there."""

    def delete(self, name: str) -> None:
        """Remove one that is there."""


class Indexes:
    """The indexes that HEC may write to."""

    path = "data/indexes"

    def __init__(self, splunk: PracticeSplunk) -> None:
        self._splunk = splunk
        self._fields: dict[str, dict[str, str]] = {}

    def entries(self) -> list[Entry]:
        common = {"disabled": "0", "datatype": "event", "totalEventCount": "0"}
        return [
            Entry(name, {**common, **self._fields.get(name, {})}) for name in sorted(self._splunk.indexes)
        ]

    def named(self, name: str) -> str:
        return name

    def create(self, name: str, form: Form) -> None:
        if not re.fullmatch(r"[a-z0-9_][a-z0-9_-]*", name):
            raise Bad(400, f"Index name={name} must be lower-case letters, digits, _ and -")
        self._splunk.indexes.add(name)
        self.update(name, form)

    def update(self, name: str, form: Form) -> None:
        self._fields.setdefault(name, {}).update({key: values[0] for key, values in form.items()})

    def delete(self, name: str) -> None:
        self._splunk.indexes.discard(name)
        self._fields.pop(name, None)


class HecTokens:
    """The tokens of HEC; their titles begin with http://, a path may leave that out."""

    path = "data/inputs/http"

    def __init__(self, splunk: PracticeSplunk) -> None:
        self._splunk = splunk

    def entries(self) -> list[Entry]:
        return [Entry(f"http://{token.name}", _fields(token)) for token in self._splunk.tokens]

    def named(self, name: str) -> str:
        return name if name.startswith("http://") else f"http://{name}"

    def create(self, name: str, form: Form) -> None:
        token = Token(name=name.removeprefix("http://"))
        self._change(token, form)
        self._splunk.tokens.append(token)

    def update(self, name: str, form: Form) -> None:
        self._change(self._token(name), form)

    def delete(self, name: str) -> None:
        self._splunk.tokens.remove(self._token(name))

    def _token(self, name: str) -> Token:
        return next(token for token in self._splunk.tokens if f"http://{token.name}" == name)

    def _change(self, token: Token, form: Form) -> None:
        index = form.get("index", [token.index])[0]
        allowed = [one for text in form.get("indexes", []) for one in text.split(",") if one]
        for one in (index, *allowed):
            if one not in self._splunk.indexes:
                raise Bad(400, f"Unknown index {one}")
        token.index = index
        token.indexes = allowed or token.indexes
        token.value = form.get("token", [token.value])[0]
        token.acknowledges = _flag(form, "useACK", token.acknowledges)
        token.disabled = _flag(form, "disabled", token.disabled)


def _fields(token: Token) -> dict[str, str | list[str]]:
    return {
        "token": token.value,
        "index": token.index,
        "indexes": list(token.indexes),
        "useACK": str(int(token.acknowledges)),
        "disabled": str(int(token.disabled)),
    }


def _flag(form: Form, name: str, default: bool) -> bool:
    return form[name][0] in ("1", "true", "True") if name in form else default


USER = "admin"
LIMITED = "looker"
PASSWORD = "practice-password"
VERSION = "9.3.0"
LOGIN = "auth/login"
INFO = "server/info"
WHO = "authentication/current-context"
ALL_OF_HEC = "data/inputs/http/http"  # HEC itself, which is not among its tokens
# /services/data/indexes/main and /servicesNS/<owner>/<app>/data/indexes/main are the same here.
ROOT = re.compile(r"/(?:services|servicesNS/[^/]*/([^/]*))/(.*?)/*")
DEFAULT_COUNT = 30  # of entries that are listed when nobody says how many; 0 is all
NEW, FOUND, GONE = "create", "read", "delete"


class PracticeSplunkManagement(http_server.PracticeServer):
    """A context manager that serves the management port of `splunk` on `url` until it is left.

    bearer: an authentication token of the user who may do all. instance_type: "cloud" for Splunk Cloud.
    knowledge: what apps hold, by path. shared: what is to be seen by all apps, as (path, name).
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
        self.instance_type = ""
        self.hec = {"disabled": "1", "enableSSL": "1", "port": "8088"}  # as in a new Splunk
        self.knowledge: Mapping[str, Stanzas] = {each.path: each for each in knowledge()}
        self.shared: set[tuple[str, str]] = set()
        self._passwords = {user: password, LIMITED: PASSWORD}
        self._user = user
        self._sessions: dict[str, str] = {}
        collections: Sequence[Collection] = (Indexes(splunk), HecTokens(splunk), *self.knowledge.values())
        self._collections = {each.path: each for each in collections}

    def judge(self, request: Request) -> Answer:
        found = ROOT.fullmatch(request.path)
        app, path = found.groups() if found else ("", "")
        if path == LOGIN:
            return self._sign_in(request)
        user = self._signed_in(request)
        if not user:
            return Answer(401, message("call not properly authenticated", "WARN"))
        try:
            if app not in (None, "", "-") and app not in self.knowledge["apps/local"].kept:
                raise Bad(404, f"Application does not exist: {app}")
            if user == LIMITED and request.method != "GET":
                raise Bad(403, f"You (user={user}) do not have permission to perform this operation")
            with self._changed:
                if path == WHO:
                    return Answer(200, feed(WHO, [Entry("context", {"username": user})], 1))
                return self._answer(request, path)
        except Bad as bad:
            return Answer(bad.status, message(str(bad)))

    def _sign_in(self, request: Request) -> Answer:
        form = parse_qs(request.body.decode())
        user, password = form.get("username", [""])[0], form.get("password", [""])[0]
        if not password or self._passwords.get(user) != password:
            return Answer(401, message("Login failed", "WARN"))
        key = uuid.uuid4().hex
        self._sessions[key] = user
        return Answer(
            200,
            f"<response><sessionKey>{key}</sessionKey></response>".encode(),
            (("Set-Cookie", f"splunkd_{self.port}={key}; Path=/; HttpOnly"),) if "cookie" in form else (),
        )

    def _signed_in(self, request: Request) -> str:
        """The user, or ""."""
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme == "Splunk":
            return self._sessions.get(given, "")
        if scheme == "Bearer":
            return self._user if given == self.bearer else ""
        if scheme == "Basic":
            try:
                user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return ""
            return user if password and self._passwords.get(user) == password else ""
        cookie = re.search(r"splunkd_\d+=(\w+)", request.headers.get("cookie", ""))
        return self._sessions.get(cookie[1], "") if cookie else ""

    def _answer(self, request: Request, path: str) -> Answer:
        if path == INFO:
            about = {"version": VERSION}
            about |= {"instance_type": self.instance_type} if self.instance_type else {}
            return Answer(200, feed(INFO, [Entry("server-info", about)], 1))
        if path == ALL_OF_HEC:
            if request.method == "POST":
                self.hec.update({name: values[0] for name, values in _form(request.body).items()})
            return Answer(200, feed("data/inputs/http", [Entry("http", self.hec)], 1))
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
        elif action == "acl" and request.method == "POST":
            form = _form(request.body)
            if not {"owner", "sharing"} <= form.keys():
                raise Bad(400, "owner and sharing are required")
            if form["sharing"] == ["global"]:
                self.shared.add((collection.path, title))
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
