"""Why a connection to the feed ended, read from an answer or an exception, and what to do next."""

from __future__ import annotations

import enum
import logging
import math
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import httpx
import msgspec

from transforms.feed.advice import FEED, IN_BETWEEN
from transforms.feed.request import is_certificate_problem
from transforms.retry import MAX_RETRY_AFTER, Backoff, retry_after
from transforms.secret import shown
from transforms.write.answer import decoded, described, fields

_log = logging.getLogger("grantex.feed")
# An attempt that lived this long is no failure to back off from: it begins a new streak. So does a stream
# that was live, after one second: to be cut is normal, and each second without it may be a gap.
HEALTHY_AFTER = 10.0
LIVE_AFTER = 1.0
# A stream that was live and ended sooner counts as no more failures than these: two seconds at most.
MOST_WHEN_LIVE = 3
# The service counts slots with a time to live of 300 s that every refused attempt re-arms: a try before
# that has passed renews the lock-out.
SLOT_WAIT = 305.0
# A rejected key stays rejected until a person or a rotation changes it: ask about twice a minute.
REJECTED_WAIT = (30.0, 60.0)
# The plans' limits count requests a minute.
RATE_LIMIT_WAIT = (60.0, 75.0)
MAX_SERVER_RETRY = 300.0
TOO_MANY = "TOO_MANY_CONNECTIONS"
REDIRECTS = (301, 302, 303, 307, 308)


class EndingKind(enum.Enum):
    """How an attempt to read the feed ended."""

    END = "end"  # the service closed the stream properly
    CUT = "cut"  # end of the bytes without the terminating chunk: a crash or a proxy
    RESET = "reset"
    REFUSED = "refused"
    UNRESOLVED = "unresolved"  # no address for the host name
    UNREACHABLE = "unreachable"
    TLS = "tls"
    CONNECT_TIMEOUT = "connect timeout"
    SILENCE = "silence"  # neither event nor keepalive
    STATUS = "status"  # an HTTP status other than 200
    CONTENT = "content"  # 200, but no event stream
    PROXY = "proxy"  # it cannot be reached, or does not let us through
    NO_KEY = "no key"  # the API key could not be read
    PROTOCOL = "protocol"  # not HTTP, or broken HTTP


@dataclass(frozen=True)
class Ending:
    """How a connection ended, as far as the wait depends on it.

    detail: plain words from whoever reported it, without secrets.
    status, code: the HTTP status and the `code` of the service's error body, for EndingKind.STATUS; or a
        WebSocket's close code that means the same.
    retry_after: seconds the service asked for in `Retry-After`.
    in_between: what was said in the service's place, by a proxy or a sign-in page; "" when it spoke itself.
    reason: what happened and what to do, where more is known than the kind says.
    was_live: the stream was open, and events could come by it.
    lived: seconds from the request to the end; 0 when none was sent. The service subscribes before it sends
        its headers, so a gateway's 504 after half a minute without any ends an attempt that was live.
    """

    kind: EndingKind
    detail: str = ""
    status: int = 0
    code: str = ""
    retry_after: float | None = None
    lived: float = 0.0
    in_between: str = ""
    reason: str = ""
    was_live: bool = False


@dataclass(frozen=True)
class Streak:
    """Failures one after the other: how many, and how many of them were of the present kind."""

    failures: int = 0
    same: int = 0
    kind: tuple[EndingKind, int, str] | None = None

    def after(self, ending: Ending) -> Streak:
        """The streak with one more ending; an attempt that had been healthy begins a new one."""
        kind = (ending.kind, ending.status, ending.code)
        healthy = ending.lived >= (LIVE_AFTER if ending.was_live else HEALTHY_AFTER)
        failures = 1 if healthy else self.failures + 1
        if ending.was_live:
            failures = min(failures, MOST_WHEN_LIVE)
        return Streak(failures, self.same + 1 if kind == self.kind else 1, kind)


SAME_AGE = 5.0  # seconds between the ages of streams that were ended for their age
ENOUGH_ENDS = 3
# No platform ends requests sooner; streams that live shorter have another trouble.
LEAST_CUT_AGE = 20.0
BEFORE_THE_CUT = 10.0  # seconds; enough to be live even on a service that is slow to answer


class CutAge:
    """Learns at which age a platform ends every stream, from those that ended unasked: three in a row tell
    it, and three in a row that ended otherwise take it back."""

    def __init__(self) -> None:
        self._ages: dict[str, deque[float]] = {}
        self._known: dict[str, float] = {}

    def ended(self, transport: str, ending: Ending) -> None:
        """A stream has ended, `lived` seconds after its request."""
        if not ending.was_live or ending.kind is EndingKind.SILENCE:
            return
        ages = self._ages.setdefault(transport, deque(maxlen=ENOUGH_ENDS))
        ages.append(ending.lived)
        if len(ages) < ENOUGH_ENDS:
            return
        known = self._known.get(transport, math.inf)
        if max(ages) - min(ages) <= SAME_AGE and min(ages) >= LEAST_CUT_AGE:
            self._known[transport] = min(ages)
        elif all(abs(age - known) > SAME_AGE for age in ages):
            self._known.pop(transport, None)

    def is_near(self, transport: str, age: float) -> bool:
        """Whether a stream of this age (seconds since its request) will soon be ended."""
        return age >= self._known.get(transport, math.inf) - BEFORE_THE_CUT


@dataclass(frozen=True)
class Decision:
    """What to do now: wait `wait` seconds; `reason` says in plain words what happened."""

    wait: float
    reason: str
    reread_secret: bool = False
    stop: bool = False  # the service says that there will be no more events


def decide(
    ending: Ending,
    streak: Streak,
    others_open: int,
    server_retry: float | None,
    uniform: Callable[[float, float], float],
) -> Decision:
    """The decision after `ending`; it never gives up, however often it fails.

    streak: the failures so far, `ending` included (`Streak.after`).
    others_open: this process's other streams that are open now.
    server_retry: seconds from the stream's `retry:`, which WHATWG makes the least wait.
    uniform: the dice, `uniform(low, high)`.
    """
    if ending.kind is EndingKind.STATUS:
        decision = _after_status(ending, streak, others_open, uniform)
        return replace(decision, reason=ending.reason or decision.reason)
    wait = Backoff().seconds(streak.failures, uniform) + min(server_retry or 0.0, MAX_SERVER_RETRY)
    reason = ending.reason or FEED[ending.kind.value].says
    return Decision(wait, f"{reason} ({ending.detail})" if ending.detail else reason)


def why(ending: Ending) -> str:
    """What `ending` means, in plain words, for whoever asks once and does not come back."""
    return decide(ending, Streak().after(ending), 0, None, lambda low, high: low).reason


def _after_status(
    ending: Ending, streak: Streak, others_open: int, uniform: Callable[[float, float], float]
) -> Decision:
    status = ending.status
    if status == 204:
        # WHATWG: "clients can be told to stop reconnecting using the HTTP 204 No Content response code".
        return Decision(0.0, FEED["204"].says, stop=True)
    if status == 429 or ending.code == TOO_MANY:
        return _after_429(ending, streak, others_open, uniform)
    if status == 401:
        # The first time soon: after a rotation the new key is usually already in place.
        wait = uniform(0.0, 0.5) if streak.same == 1 else uniform(*REJECTED_WAIT)
        why = _told(FEED["401"].says, ending)
        return Decision(wait, why, reread_secret=True)
    if status == 403:
        why = _told(FEED["403"].says, ending)
        return Decision(uniform(*REJECTED_WAIT), why, reread_secret=True)
    if status == 404:
        why = _told(FEED["404"].says, ending)
        return Decision(uniform(*REJECTED_WAIT), why)
    if status in REDIRECTS:
        return Decision(uniform(*REJECTED_WAIT), FEED["redirect"].says.format(status=status))
    wait = Backoff().seconds(streak.failures, uniform)
    if status == 503 and ending.retry_after is not None:
        wait = _asked(ending.retry_after, uniform)
    return Decision(wait, _told(FEED["status"].says.format(status=status), ending))


def _after_429(
    ending: Ending, streak: Streak, others_open: int, uniform: Callable[[float, float], float]
) -> Decision:
    if ending.code == TOO_MANY:
        wait = uniform(SLOT_WAIT, SLOT_WAIT + 30.0)
        why = FEED["slots" if others_open else "no slot"].says.format(open=others_open)
        return Decision(wait, f"{why} ({ending.status})")
    why = _told(FEED["429"].says, ending)
    if ending.retry_after is not None:
        return Decision(_asked(ending.retry_after, uniform), why)
    return Decision(uniform(*RATE_LIMIT_WAIT), why)


def _asked(seconds: float, uniform: Callable[[float, float], float]) -> float:
    """`Retry-After` wins; up to a second more keeps clients from coming back all at once."""
    return min(max(seconds, 0.0), MAX_RETRY_AFTER) + uniform(0.0, 1.0)


def _told(reason: str, ending: Ending) -> str:
    if ending.in_between and ending.status < 500:
        return IN_BETWEEN.format(status=ending.status, who=ending.in_between)
    detail = ending.in_between or ending.detail
    return f"{reason} ({detail})" if detail else reason


# An error's body is a short JSON object; whatever is longer is not the service speaking.
MAX_ERROR_BODY = 64 * 1024
ERROR_BODY_SECONDS = 10.0


class _ErrorBody(msgspec.Struct):
    code: str = ""
    message: str = ""


_read_error = msgspec.json.Decoder(_ErrorBody).decode


# With a proxy, these are about the way to the proxy itself.
_ON_THE_WAY = (
    EndingKind.REFUSED,
    EndingKind.UNRESOLVED,
    EndingKind.UNREACHABLE,
    EndingKind.CONNECT_TIMEOUT,
)


def ending_of_error(error: Exception, lived: float = 0.0, proxy: str = "") -> Ending:
    """How an attempt ended that raised `error`; `lived` as in `Ending`. Whatever it is, it came from the
    network or an answer: nothing that a server sends may end the reading.

    proxy: the one that the connection goes through, as it may be shown.
    """
    if isinstance(error, httpx.HTTPError):
        if proxy and _kind_of(error) in _ON_THE_WAY:
            return Ending(EndingKind.PROXY, detail=f"{proxy}: {_plain(error)}", lived=lived)
        return Ending(_kind_of(error), detail=_plain(error), lived=lived)
    _log.debug("an answer that could not be read", exc_info=error)
    return Ending(EndingKind.PROTOCOL, detail=one_line(f"{type(error).__name__}: {error}"), lived=lived)


def refusal(response: httpx.Response, now: float) -> Ending | None:
    """Why `response` is no event stream, or None when it is one; `now` in epoch seconds.

    Reads the body of an error (bounded). Raises httpx.HTTPError when that fails. `lived` is left at 0.
    """
    if response.status_code != 200:
        said = b"" if response.status_code == 204 else _body(response)
        body = decoded(_read_error, said) or _ErrorBody()
        return Ending(
            EndingKind.STATUS,
            detail=one_line(body.message),
            status=response.status_code,
            code=body.code,
            retry_after=retry_after(response.headers, now),
            in_between=who_answered(response.headers, said),
        )
    types = _values(response, "content-type")
    if not types or any(value.partition(";")[0].strip() != "text/event-stream" for value in types):
        return Ending(EndingKind.CONTENT, detail=f"content type {one_line(', '.join(types)) or 'missing'}")
    encodings = [value for value in _values(response, "content-encoding") if value != "identity"]
    if encodings:
        text = f"content encoding {one_line(', '.join(encodings))}, which was not asked for"
        return Ending(EndingKind.CONTENT, detail=text)
    return None


def _values(response: httpx.Response, name: str) -> list[str]:
    """Every value of a header, which may be given several times, in lower case."""
    values = response.headers.get_list(name, split_commas=True)
    return [value.strip().lower() for value in values if value.strip()]


def _kind_of(error: httpx.HTTPError) -> EndingKind:
    causes = list(_causes(error))
    if is_certificate_problem(error) and isinstance(error, httpx.ConnectError):
        return EndingKind.TLS
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return EndingKind.UNRESOLVED
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return EndingKind.REFUSED
    if any(isinstance(cause, (ConnectionResetError, BrokenPipeError)) for cause in causes):
        return EndingKind.RESET
    if isinstance(error, httpx.ConnectTimeout):
        return EndingKind.CONNECT_TIMEOUT
    if isinstance(error, httpx.TimeoutException):
        return EndingKind.SILENCE
    if isinstance(error, httpx.RemoteProtocolError):
        # httpx's own words for an end of the bytes in the middle, before or after the headers.
        text = str(error)
        is_cut = "closed connection" in text or "disconnected" in text
        return EndingKind.CUT if is_cut else EndingKind.PROTOCOL
    if isinstance(error, (httpx.ConnectError, httpx.ProxyError, httpx.UnsupportedProtocol)):
        return EndingKind.UNREACHABLE
    return EndingKind.CUT if isinstance(error, httpx.NetworkError) else EndingKind.PROTOCOL


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _plain(error: httpx.HTTPError) -> str:
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadTimeout)):
        return ""  # the reason says it in better words
    return one_line(str(error))


def _body(response: httpx.Response) -> bytes:
    """An error's body, or its beginning."""
    body = bytearray()
    until = time.monotonic() + ERROR_BODY_SECONDS
    for block in response.iter_raw():
        body += block
        if len(body) > MAX_ERROR_BODY or time.monotonic() > until:
            break
    return bytes(body)


def who_answered(headers: Mapping[str, str], body: bytes) -> str:
    """What an error's body is when it is not in the service's words, which are an object with a message and
    a code (its own, or its framework's `statusCode`); "" when it is, or nothing was said."""
    members = fields(body) or {}
    own = "message" in members and ("code" in members or "statusCode" in members)
    return "" if own or not body.strip() else described(headers, body)


def something_in_between(root: str, status: int, headers: Mapping[str, str], body: bytes) -> str:
    """Who gave, in the place of the service at `root`, an answer that is not what was asked for, as a
    sentence without its end; "" when that may have been the service itself."""
    who = described(headers, body) if status == 200 else who_answered(headers, body)
    if not who or status >= 500:
        return ""
    return f"something in between answered {status} in the place of {root} ({who})"


def one_line(text: str) -> str:
    """Text from outside, fit for a log line."""
    return shown("".join(c if c.isprintable() else " " for c in text))
