"""What an exception or a status outside 2xx means for a batch: one Outcome, with what a person should do.

The words come from `advice.py`. What a destination understands better (its own codes) it judges first, with
`failed`; what is left here is never an event's own fault, so nothing is rejected.
"""

from __future__ import annotations

import errno
import http.client
import logging
import socket
import ssl
from collections.abc import Callable, Collection, Mapping
from typing import TypeVar

import httpx

from transforms.retry import retry_after
from transforms.secret import SecretError, shown
from transforms.write.advice import ANY, HTTP, KEPT, ONCE_FIXED, Advice
from transforms.write.answer import described, is_page
from transforms.write.contract import Outcome

__all__ = ["KEPT", "ONCE_FIXED", "as_outcome", "asked", "failed", "refused"]
log = logging.getLogger("grantex.write")
# A gateway's own statuses: the service behind it was reached, or may have been, and its answer was not. 502
# and 504 are HTTP's (RFC 9110); 520 to 527 and 530 Cloudflare's; 598 and 599 those of other proxies.
GATEWAY = frozenset({502, 504, *range(520, 528), 530, 598, 599})
NETWORK_SIGN_IN = 511  # RFC 6585: a network that wants somebody to sign in


def failed(
    where: str,
    advice: Advice,
    later: Collection[int],
    said: str = "",
    *,
    unknown: bool = False,
    wait: float | None = None,
    **names: str,
) -> Outcome:
    """All of `later` again; the destination is blocked when the advice is for a person.

    said, names: as `Advice.told` takes them. wait: seconds the service asked for.
    """
    cause = advice.told(where, said, **names)
    return Outcome(later=later, cause=cause, blocked=bool(advice.do), unknown=unknown, retry_after=wait)


# Statuses


def is_delivered(status: int) -> bool:
    return 200 <= status < 300


def is_credential(status: int) -> bool:
    """Whether a status says that the key or token is wrong, so that reading it again may help."""
    return status in (401, 403)


def is_retryable(status: int) -> bool:
    """Statuses that pass by themselves: 408, 429 and all of 5xx but the one that wants a sign-in."""
    return status in (408, 429) or (status >= 500 and status != NETWORK_SIGN_IN)


def refused(
    where: str,
    status: int,
    headers: Mapping[str, str],
    count: int,
    now: float,
    body: bytes = b"",
    own: bool = True,
    credential: str = "the key or token",
) -> Outcome:
    """The outcome of a status outside 2xx for a batch of `count` events, whatever service it is.

    where: the service as a person knows it, "Splunk at https://host:8088". now: seconds since the epoch.
    own: whether the body may be the service's own words, for a service that is known to speak; a page never
    is. credential: what the service would have refused by 401 or 403.
    """
    later = range(count)
    if status == 413:
        cause = f"{where} found the request too large (413). It is sent again in halves."
        return Outcome(later=later, cause=cause, too_large=True)
    own = own and not is_page(headers, body)
    said = str(status) if own else f"{status}, {described(headers, body)}"
    if is_retryable(status):
        unknown = status in GATEWAY
        advice = HTTP["gateway" if unknown else "busy"]
        return failed(where, advice, later, said, unknown=unknown, wait=retry_after(headers, now))
    if status == NETWORK_SIGN_IN or (is_credential(status) and not own):
        return failed(where, HTTP["not_its_refusal"], later, said, credential=credential)
    target = shown(headers.get("location", "")) if 300 <= status < 400 else ""
    return failed(where, _advice(status), later, f"{status} to {target!r}" if target else said)


def _advice(status: int) -> Advice:
    if is_credential(status):
        return HTTP["credential"]
    if 300 <= status < 400:
        return HTTP["redirect"]
    if status in (404, 405, 410):
        return HTTP["path"]
    return HTTP[{407: "proxy", 415: "compression"}.get(status, "refused")]


# Exceptions

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
_MAYBE_SENT = (httpx.TransportError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
# Network conditions for which Python has no class of their own.
_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN, errno.EADDRNOTAVAIL}
_Reply = TypeVar("_Reply")


def as_outcome(error: BaseException, count: int, where: str) -> Outcome | None:
    """The outcome that `error` stands for in a batch of `count` events; None when it is a bug.

    A secret that cannot be read and a certificate that is not trusted block the destination: a person has
    to change something. An illegal header value does too, and its message would show the header (a
    token), so it is left out.
    """
    later = range(count)
    if isinstance(error, SecretError):
        return failed(where, ANY["secret"], later, why=str(error))
    if isinstance(error, (httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
        return failed(where, HTTP["request"], later)
    if isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE_VERIFY_FAILED" in str(error):
        return failed(where, ANY["certificate"], later, _plain(error))
    if isinstance(error, httpx.ProxyError) and " 407 " in str(error):
        return failed(where, HTTP["proxy"], later, _plain(error))
    if isinstance(error, _NOT_SENT) or (isinstance(error, OSError) and error.errno in _UNREACHABLE):
        return failed(where, ANY["unreachable"], later, _plain(error))
    if isinstance(error, _MAYBE_SENT):
        return failed(where, ANY["no_answer"], later, _plain(error), unknown=True)
    return None


def asked(
    post: Callable[[], _Reply], judge: Callable[[_Reply], Outcome | None], count: int, where: str
) -> Outcome | None:
    """Post a batch of `count` events once, and judge the reply. The one place in which whatever an answer can
    make anybody raise becomes an outcome: any answer is data, and none restarts a lane.
    """
    try:
        return judge(post())
    except Exception as error:
        outcome = as_outcome(error, count, where)
        if outcome is None:
            log.debug("%s: an answer that cannot be read", where, exc_info=True)
            said = type(error).__name__
            outcome = failed(where, ANY["odd_answer"], range(count), said, unknown=True)
        return outcome


def _plain(error: BaseException) -> str:
    return shown(str(error)) or type(error).__name__
