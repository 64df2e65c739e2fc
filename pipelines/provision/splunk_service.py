"""A Splunk's management port, through splunk-sdk: things found, made and changed, refusals as a person reads
them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import httpx

from pipelines.provision.plan import CannotProvision, Refused, Thing
from transforms.proxies import ProxyError
from transforms.secret import SecretError, read_by, shown
from transforms.way_out import WayOut

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

SECONDS = 30.0
NOBODY = "nobody"
HEC_APP = "splunk_httpinput"  # Splunk's own, where HEC's settings are
# What a user needs for what (Splunk's "Rights and capabilities").
RIGHTS = {
    "data/indexes": "the capability indexes_edit",
    "data/inputs/http": "the capability edit_token_http",
    "apps/local": "the capability admin_all_objects (or the role admin, on Splunk Cloud sc_admin)",
    "saved/searches": "the capability schedule_search, and to write in the app",
}
TO_WRITE = "to write in the app, as the role admin may (on Splunk Cloud sc_admin)"


class Found(NamedTuple):
    """Where a thing is: its collection's path, its name, and the app that it belongs to. everywhere: other
    apps see it as well."""

    path: str
    name: str
    app: str
    everywhere: bool = False


class SplunkService:
    """One Splunk, signed in. Raises CannotProvision, also of every method."""

    def __init__(self, root: str, settings: Settings) -> None:
        from splunklib import client

        parts = urlsplit(root)
        self._root = root
        self._collection = client.Collection
        try:
            handler = Handler(root, settings.way_out)
            who = _credentials(settings)
        except (SecretError, ProxyError, OSError) as error:
            raise CannotProvision(f"{root}: {shown(str(error))}", bad=True) from None
        port = parts.port or (443 if parts.scheme == "https" else 80)
        with self._asking("", signing_in=True):
            self._service = client.connect(
                host=parts.hostname, port=port, scheme=parts.scheme, handler=handler, **who
            )
            info = self._service.info
            self.version = shown(str(info.get("version", "?")), 20)
            self.is_cloud = info.get("instance_type") == "cloud"
            context = self._collection(self._service, "authentication")["current-context"].content
            self.user = shown(str(context["username"]), 100)

    def __str__(self) -> str:
        return f"Splunk {self.version} at {self._root}"

    def thing(self, what: str, at: Found, wanted: Mapping[str, str], is_there: bool = True) -> Thing:
        """A thing that is no more than its settings. is_there: its app is."""
        found = self.found(at, tuple(wanted)) if is_there else None
        # As Splunk gives it back: without blanks around it.
        ours = {name: plain(value) for name, value in wanted.items()}

        def make() -> None:
            self.make(at, wanted)

        def change() -> None:
            self.change(at, wanted)

        return Thing(what, ours, found, make, change)

    def found(self, at: Found, names: Sequence[str]) -> dict[str, str] | None:
        """These of its settings, as text; None when it is missing."""
        with self._asking(at.path):
            try:
                content = self._of(at)[at.name].content
            except KeyError:
                return None
        return {name: plain(content[name]) for name in names if content.get(name) is not None}

    def make(self, at: Found, settings: Mapping[str, str]) -> None:
        with self._asking(at.path):
            collection = self._of(at)
            collection.post(name=at.name, owner=NOBODY, app=at.app, sharing="app", **settings)
            if at.everywhere:
                rights = {"perms.read": "*", "perms.write": "admin"}
                collection[at.name].acl_update(owner=NOBODY, sharing="global", **rights)

    def change(self, at: Found, settings: Mapping[str, str]) -> None:
        with self._asking(at.path):
            self._of(at)[at.name].update(**settings)

    def _of(self, at: Found) -> Any:
        return self._collection(self._service, f"/servicesNS/{NOBODY}/{at.app}/{at.path}")

    @contextlib.contextmanager
    def _asking(self, path: str, signing_in: bool = False) -> Iterator[None]:
        """Inside, Splunk is asked for what is at `path`: what it refuses is a CannotProvision."""
        from splunklib.binding import HTTPError

        try:
            yield
        except HTTPError as error:
            raise self._refused(error, path, signing_in) from None
        except (httpx.HTTPError, OSError) as error:
            raise CannotProvision(_unreachable(self._root, error)) from None
        except (ParseError, AttributeError, KeyError, TypeError, ValueError) as odd:
            raise CannotProvision(
                f"{self._root} answered with what is no answer of a management port ({type(odd).__name__}): "
                "is --splunk_management_url right? Its usual port is 8089"
            ) from None

    def _refused(self, error: Any, path: str, signing_in: bool) -> CannotProvision:
        # splunk-sdk puts Splunk's own words behind the status.
        status, words = error.status, shown(str(error).rpartition(" -- ")[2])
        if status == 401:
            return CannotProvision(
                f"--splunk_management_token: {self._root} refused it, or user and password ({words}): make a "
                "token in Splunk under Settings > Tokens; it is not the HEC token"
            )
        if status == 403:
            right = RIGHTS.get(path, TO_WRITE)
            return Refused(f"this user may not ({words}): a role of theirs needs {right}")
        if status == 404 and signing_in:
            return CannotProvision(
                f"{self._root} has no management port's pages: is --splunk_management_url right? Its usual "
                "port is 8089"
            )
        return Refused(f"Splunk answered {status}: {words}")


def plain(value: Any) -> str:
    """A setting as text: a list with commas, what is true as 1, no blanks around it."""
    if isinstance(value, (list, tuple)):
        return ",".join(plain(each) for each in value)
    text = "\n".join(line.rstrip() for line in str(value).strip().splitlines())
    return {"true": "1", "false": "0", "True": "1", "False": "0"}.get(text, text)


def _credentials(settings: Settings) -> dict[str, Any]:
    way_out = settings.way_out
    if token := settings["splunk_management_token"]:
        return {"splunkToken": read_by(way_out, token)}
    return {"username": settings["splunk_user"], "password": read_by(way_out, settings["splunk_password"])}


def _unreachable(root: str, error: Exception) -> str:
    words = shown(str(error)) or type(error).__name__
    if "CERTIFICATE" in words.upper():
        return (
            f"{root}: its certificate is not trusted ({words}): give its authority with --ca_file; a new "
            "Splunk has one for SplunkServerDefaultCert, which no host name fits: give it one of its own"
        )
    return f"{root} could not be reached ({words}): is --splunk_management_url right, and the way there open?"


class Handler:
    """Sends splunk-sdk's requests out our way: its own knows no proxy, and trusts everybody."""

    def __init__(self, root: str, way_out: WayOut) -> None:
        proxy = way_out.proxy(root)
        self._client = httpx.Client(
            verify=way_out.tls() if root.startswith("https:") else False,
            proxy=None if proxy is None else httpx.Proxy(proxy.url, auth=proxy.login()),
            timeout=SECONDS,
            follow_redirects=False,
            trust_env=False,
        )

    def __call__(self, url: str, message: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        method, body = message.get("method", "GET"), message.get("body", b"")
        headers = [(str(name), str(value)) for name, value in message["headers"]]
        answer = self._client.request(method, str(url), headers=headers, content=body)
        return {
            "status": answer.status_code,
            "reason": answer.reason_phrase,
            "headers": list(answer.headers.items()),
            "body": io.BytesIO(answer.content),
        }
