"""Exceptions that mean "try again": what a network does to any writer, told apart from bugs."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl

import httpx

from transforms.secret import SecretError
from transforms.write.contract import Outcome

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
