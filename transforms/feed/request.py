"""What is asked of the service: its settings, addresses and headers."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx

from transforms.secret import Secret, SecretError

STREAM_PATH = "/v1/events/stream"
ACCOUNT_PATH = "/v1/me"


@dataclass(frozen=True)
class FeedSettings:
    """Where the feed is and how to read it; picklable, and free of the key's value.

    url: the service's root, such as https://api.grantex.dev.
    types: event types to ask for; none asks for all.
    ca_file: PEM file with a further certificate authority.
    connect_timeout, read_timeout, account_timeout: seconds.
    """

    url: str
    api_key: Secret
    types: tuple[str, ...] = ()
    ca_file: str | None = None
    connect_timeout: float = 10.0
    # The service withholds the response's headers until the first event or keepalive, up to 30 s, and a
    # healthy idle stream has a keepalive every 30 s: two and a half of them without a byte is silence.
    read_timeout: float = 75.0
    account_timeout: float = 10.0

    @property
    def root(self) -> str:
        """The URL without user, password, query and fragment: safe to log, and to add paths to."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"


def stream_url(settings: FeedSettings) -> str:
    """The stream's address. The service compares types exactly, untrimmed, and answers 500 to a repeated
    `types`: so one parameter, no spaces."""
    types = dict.fromkeys(name.strip() for name in settings.types if name.strip())
    url = settings.root + STREAM_PATH
    return f"{url}?types={quote(','.join(types), safe='')}" if types else url


def read_key(settings: FeedSettings) -> str:
    """The API key's value. Raises SecretError, also for a value that no header can carry."""
    key = settings.api_key.read().strip()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise SecretError("it is empty or holds characters that no HTTP header can carry")
    return key


def stream_headers(key: str, last_event_id: str) -> dict[str, str]:
    """The stream's request headers; the last event id goes along when a header can carry it."""
    headers = {
        "Authorization": f"Bearer {key}",
        "Accept": "text/event-stream",
        "Cache-Control": "no-store",
        "Accept-Encoding": "identity",
    }
    if last_event_id and last_event_id.isprintable():
        headers["Last-Event-ID"] = last_event_id
    return headers


def open_client(settings: FeedSettings) -> httpx.Client:
    """A client that never follows a redirect (the key must not travel) and, on loopback, no proxy.

    Raises OSError (ssl.SSLError included) when `ca_file` cannot be read.
    """
    context = httpx.create_ssl_context()
    if settings.ca_file:
        context.load_verify_locations(cafile=settings.ca_file)
    timeout = httpx.Timeout(settings.connect_timeout, read=settings.read_timeout)
    return httpx.Client(
        verify=context,
        timeout=timeout,
        follow_redirects=False,
        # Each request on its own connection, so that its Wire sees the TCP connection come up.
        limits=httpx.Limits(max_keepalive_connections=0),
        trust_env=not _is_loopback(urlsplit(settings.url).hostname or ""),
    )


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_certificate_problem(error: BaseException) -> bool:
    """Whether a connection failed in its TLS handshake."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
