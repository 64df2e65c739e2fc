"""What HTTP statuses and headers mean for a batch: pure functions (broken connections: transient.py)."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
from collections.abc import Mapping

import httpx

from transforms.retry import retry_after
from transforms.secret import SecretError
from transforms.write.contract import Outcome

# Longer waits than this are a mistake of a clock or a proxy, and an hour is already a loud outage.
MAX_RETRY_AFTER = 3600.0
# Bad Gateway and Gateway Timeout: the service behind was reached (or may have been), and its answer was not.
GATEWAY = frozenset({502, 504})
KEPT = "The events are kept and sent again"


def is_delivered(status: int) -> bool:
    return 200 <= status < 300


def is_credential(status: int) -> bool:
    """Whether a status says that the key or token is wrong, so that reading it again may help."""
    return status in (401, 403)


def is_retryable(status: int) -> bool:
    """Statuses that pass by themselves: 408, 429 and all of 5xx."""
    return status in (408, 429) or status >= 500


def refused(where: str, status: int, headers: Mapping[str, str], count: int, now: float) -> Outcome:
    """The outcome of a status outside 2xx for a batch of `count` events, whatever service it is.

    A destination looks first at what it understands better than its status: a 400, a reply with a code.
    What is left here is never an event's own fault, so nothing is rejected.

    where: the service as a person knows it, "Splunk at https://host:8088".
    """
    everything = range(count)
    if is_retryable(status):
        wait = retry_after(headers, now)
        unknown = status in GATEWAY
        maybe = "; what was sent may have arrived" if unknown else ""
        cause = f"{where} answered {status}{maybe}. {KEPT}."
        return Outcome(later=everything, cause=cause, retry_after=wait, unknown=unknown)
    if status == 413:
        cause = f"{where} found the request too large (413). It is sent again in halves."
        return Outcome(later=everything, cause=cause, too_large=True)
    return Outcome(later=everything, cause=f"{where} {advice(status, headers)}", blocked=True)


def advice(status: int, headers: Mapping[str, str]) -> str:
    """What blocks everything, and what a person can do about it."""
    kept = f"{KEPT} when this is mended"
    if is_credential(status):
        return f"refused the credential ({status}). {kept}: correct the key or token, or its rights."
    if 300 <= status < 400:
        target = headers.get("location", "")[:200]
        return (
            f"redirects elsewhere ({status}{f' to {target!r}' if target else ''}). {kept}: correct its URL."
        )
    if status in (404, 405, 410):
        return f"does not serve this path ({status}). {kept}: correct its URL."
    if status == 407:
        return f"cannot be reached without signing in to a proxy (407). {kept}."
    if status == 415:
        return f"does not accept compressed requests (415). {kept}: set --http_compression=none."
    return f"refused the request with status {status}. {kept}: check its URL and what stands in between."


# Raised before any of the request can have been taken.
_NOT_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.WriteTimeout,  # the body was not sent in full
    ConnectionRefusedError,
    socket.gaierror,
    socket.herror,
)
# Raised when the request, or part of it, was sent: it may have been taken.
_MAYBE_SENT = (
    httpx.TransportError,
    ConnectionError,
    TimeoutError,
    ssl.SSLError,
    http.client.BadStatusLine,
    http.client.IncompleteRead,
)
# Network conditions for which Python has no class of their own.
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}


def as_outcome(error: BaseException, count: int, destination: str) -> Outcome | None:
    """The outcome that `error` stands for in a batch of `count` events; None when it is a bug.

    A secret that cannot be read and a certificate that is not trusted block the destination: a person has
    to change something. An illegal header value does too, and its message would show the header (a
    token), so it is left out.
    """
    later = range(count)
    if isinstance(error, SecretError):
        return Outcome(later=later, blocked=True, cause=f"{destination}: {error}")
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        cause = f"{destination}: the request could not be built; check its URL and its token for stray signs"
        return Outcome(later=later, blocked=True, cause=cause)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        cause = f"{destination}: its certificate is not trusted ({error}); give the authority with --ca_file"
        return Outcome(later=later, blocked=True, cause=cause)
    if isinstance(error, _NOT_SENT) or (isinstance(error, OSError) and error.errno in _UNREACHABLE):
        return Outcome(later=later, cause=f"{destination} cannot be reached: {_plain(error)}; retrying")
    if isinstance(error, _MAYBE_SENT):
        cause = f"{destination} did not answer: {_plain(error)}; what was sent may have arrived; retrying"
        return Outcome(later=later, unknown=True, cause=cause)
    return None


def _plain(error: BaseException) -> str:
    return str(error) or type(error).__name__
