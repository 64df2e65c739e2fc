"""Which proxy a URL is reached through: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, as curl reads them."""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote, urlsplit

from transforms.secret import LiteralSecret, Secret, remember

# curl's (CURL_DEFAULT_PROXY_PORT): so that one value means the same to both.
DEFAULT_PORT = 1080
# The clouds' metadata servers, which answer on the machine itself: a proxy elsewhere would be asked for the
# identity of its own machine.
METADATA = frozenset({"metadata", "metadata.google.internal"})
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class ProxyError(ValueError):
    """A proxy's address cannot be used. The message says why and never repeats the value."""


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy. `credentials` reads as "user:password" in base64, as its header has it.

    Picklable; a password travels no further than this process (LiteralSecret).
    """

    host: str
    port: int
    credentials: Secret | None = None

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    @property
    def url(self) -> str:
        """Without credentials: may be shown."""
        return f"http://{self}"

    def login(self) -> tuple[str, str] | None:
        """User and password. Raises SecretError in a process that was not given them."""
        if self.credentials is None:
            return None
        user, _, password = base64.b64decode(self.credentials.read()).decode().partition(":")
        return user, password

    def url_with_login(self) -> str:
        """For libraries that want all in one; never to be shown. Raises SecretError as `login` does."""
        login = self.login()
        if login is None:
            return self.url
        return f"http://{quote(login[0], safe='')}:{quote(login[1], safe='')}@{self}"

    def headers(self) -> dict[str, str]:
        """What a request to the proxy itself carries. Raises SecretError as `login` does."""
        return {"Proxy-Authorization": f"Basic {self.credentials.read()}"} if self.credentials else {}


def host_and_port(host: str, port: int | None) -> str:
    """As a URL has it: an IPv6 address stands in brackets."""
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)


def parse_proxy(text: str) -> Proxy:
    """The proxy that `text` names: "http://user:password@host:port", of which only the host is needed.

    Raises ProxyError.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "http", text
    if re.fullmatch(r"socks[0-9a-z]*", scheme, re.IGNORECASE):
        raise ProxyError("names a SOCKS proxy, and only HTTP proxies can be used: http://host:port")
    if scheme.lower() == "https":
        raise ProxyError(
            "asks for TLS on the way to the proxy, which is not supported: write http://host:port (what goes "
            "to https:// addresses is encrypted all the same)"
        )
    if scheme.lower() != "http":
        raise ProxyError("must begin with http:// and name a host, as http://host:port")
    login, _, address = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        raise ProxyError("is no address of a proxy (quotes or blanks in it?): write http://host:port")
    port = int(found[2] or DEFAULT_PORT)
    host = found[1].strip("[]")
    if not 0 < port < 65_536 or (":" in host and _address(host) is None):
        raise ProxyError("is no address of a proxy: write http://host:port, the port from 1 to 65535")
    return Proxy(host, port, _credentials(login) if login else None)


def _credentials(login: str) -> Secret:
    user, _, password = login.partition(":")
    user, password = unquote(user), unquote(password)
    if not ((user + password).isascii() and (user + password).isprintable()):
        # botocore takes no others.
        raise ProxyError("has a user or password with characters other than printable ASCII")
    remember(password)
    return LiteralSecret(base64.b64encode(f"{user}:{password}".encode()).decode())


@dataclass(frozen=True)
class NoProxy:
    """What is reached directly. `ignored` are entries that match nothing, for a warning."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    ignored: tuple[str, ...] = ()

    def __contains__(self, host: str) -> bool:
        if self.everything:
            return True
        address = _address(host)
        if address is not None:
            return any(address in network for network in self.networks)
        labels = host.lower().rstrip(".").split(".")
        return any(".".join(labels[start:]) in self.names for start in range(len(labels)))


_NAME = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?", re.ASCII)


def parse_no_proxy(text: str) -> NoProxy:
    """ "example.com,.example.org 10.0.0.0/8,[::1]": names with what is below them, addresses, networks.

    `*` alone is everything. Nothing raises: what cannot be understood matches nothing, as with curl.
    """
    if text.strip() == "*":
        return NoProxy(everything=True)
    names: set[str] = set()
    networks: list[Network] = []
    ignored: list[str] = []
    for entry in text.replace(",", " ").split():
        network = _network(entry)
        if network is not None:
            networks.append(network)
        elif _NAME.fullmatch(entry):
            names.add(entry.strip(".").lower())
        else:
            ignored.append(entry)
    return NoProxy(False, frozenset(names), tuple(networks), tuple(ignored))


def _network(entry: str) -> Network | None:
    address, slash, bits = entry.partition("/")
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    try:
        return ipaddress.ip_network(f"{address}{slash}{bits}", strict=False)
    except ValueError:
        return None


def _address(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        pass
    if re.fullmatch(r"[0-9][0-9a-fxA-FX.]*", host, re.ASCII):  # 127.1, as the system's resolver reads it
        try:
            return ipaddress.IPv4Address(socket.inet_aton(host))
        except OSError:
            return None
    return None


def is_local(host: str) -> bool:
    """Whether `host` is this machine, or one that answers for it: never behind a proxy."""
    name = host.lower().rstrip(".")
    address = _address(name)
    if address is None:
        return name == "localhost" or name.endswith(".localhost") or name in METADATA
    mapped = getattr(address, "ipv4_mapped", None) or address
    return mapped.is_loopback or mapped.is_unspecified or mapped.is_link_local


def proxy_for(url: str, environ: Mapping[str, str], given: Proxy | None = None) -> Proxy | None:
    """The proxy between us and `url`, None for the direct way.

    given: a proxy to use for every URL, whatever `environ` says; only local hosts are not behind it.

    Raises ProxyError, which names the environment variable.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_local(host):
        return None
    if given is not None:
        return given
    if host in parse_no_proxy(first(environ, ("no_proxy", "NO_PROXY"))[1]):
        return None
    name, value = first(environ, _variables(parts.scheme, environ))
    if not value:
        return None
    try:
        return parse_proxy(value)
    except ProxyError as error:
        raise ProxyError(f"{name} {error}") from None


def _variables(scheme: str, environ: Mapping[str, str]) -> Iterable[str]:
    """Where the proxy for a scheme is looked up, in curl's order; a CGI program's HTTP_PROXY is a header that
    somebody sent (https://httpoxy.org)."""
    if scheme in ("https", "wss"):
        return ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
    upper = () if "REQUEST_METHOD" in environ else ("HTTP_PROXY",)
    return ("http_proxy", *upper, "all_proxy", "ALL_PROXY")


def first(environ: Mapping[str, str], names: Iterable[str]) -> tuple[str, str]:
    """The first variable that is not empty, with its value; two empty texts when there is none."""
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))
