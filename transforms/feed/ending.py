"""What httpx reports about a connection's end, in the words that reconnecting decides on."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import httpx
import msgspec

from transforms.feed.reconnect import Ending, How
from transforms.feed.request import is_certificate_problem

# An error's body is a short JSON object; whatever is longer is not the service speaking.
MAX_ERROR_BODY = 64 * 1024
ERROR_BODY_SECONDS = 10.0


class _ErrorBody(msgspec.Struct):
    code: str = ""
    message: str = ""


def ending_of_error(error: httpx.HTTPError, lived: float = 0.0) -> Ending:
    """How a connection ended that httpx gave up on; `lived` in seconds since its headers."""
    return Ending(_how(error), detail=_plain(error), lived=lived)


def refusal(response: httpx.Response, now: float) -> Ending | None:
    """Why `response` is no event stream, or None when it is one; `now` in epoch seconds.

    Reads the body of an error (bounded). Raises httpx.HTTPError when that fails.
    """
    if response.status_code != 200:
        body = _ErrorBody() if response.status_code == 204 else _error_body(response)
        return Ending(
            How.STATUS,
            detail=_one_line(body.message),
            status=response.status_code,
            code=body.code,
            retry_after=parse_retry_after(response.headers.get("retry-after", ""), now),
        )
    content_type = response.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != "text/event-stream":
        return Ending(How.CONTENT, detail=f"content type {_one_line(content_type) or 'missing'}")
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        return Ending(How.CONTENT, detail=f"content encoding {_one_line(encoding)}, which was not asked for")
    return None


def parse_retry_after(value: str, now: float) -> float | None:
    """Seconds asked for by a `Retry-After` header (RFC 9110: seconds or an HTTP date), None if unreadable."""
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _how(error: httpx.HTTPError) -> How:
    causes = list(_causes(error))
    if is_certificate_problem(error) and isinstance(error, httpx.ConnectError):
        return How.TLS
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return How.UNRESOLVED
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return How.REFUSED
    if any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in causes):
        return How.RESET
    if isinstance(error, httpx.ConnectTimeout):
        return How.CONNECT_TIMEOUT
    if isinstance(error, httpx.TimeoutException):
        return How.SILENCE
    if isinstance(error, httpx.RemoteProtocolError):
        # httpx's own words for an end of the bytes in the middle, before or after the headers.
        text = str(error)
        return How.CUT if "closed connection" in text or "disconnected" in text else How.PROTOCOL
    if isinstance(error, (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol)):
        return How.UNREACHABLE
    return How.CUT if isinstance(error, httpx.NetworkError) else How.PROTOCOL


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _plain(error: httpx.HTTPError) -> str:
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadTimeout)):
        return ""  # the reason says it in better words
    return _one_line(str(error))


def _error_body(response: httpx.Response) -> _ErrorBody:
    body = bytearray()
    until = time.monotonic() + ERROR_BODY_SECONDS
    for block in response.iter_raw():
        body += block
        if len(body) > MAX_ERROR_BODY or time.monotonic() > until:
            return _ErrorBody()
    try:
        return msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return _ErrorBody()


def _one_line(text: str) -> str:
    """Text from outside, fit for a log line."""
    return "".join(c if c.isprintable() else " " for c in text)[:200].strip()
