"""Splunk's HTTP Event Collector without its network: codes, tokens, what a body holds, acknowledgements."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import msgspec
from isal import isal_zlib
from isal.igzip_lib import IsalError

# Code -> status and text, from Splunk's "Troubleshoot HTTP Event Collector".
CODES: Mapping[int, tuple[int, str]] = {
    0: (200, "Success"),
    1: (403, "Token disabled"),
    2: (401, "Token is required"),
    3: (401, "Invalid authorization"),
    4: (403, "Invalid token"),
    5: (400, "No data"),
    6: (400, "Invalid data format"),
    7: (400, "Incorrect index"),
    8: (500, "Internal server error"),
    9: (503, "Server is busy"),
    10: (400, "Data channel is missing"),
    11: (400, "Invalid data channel"),
    12: (400, "Event field is required"),
    13: (400, "Event field cannot be blank"),
    14: (400, "ACK is disabled"),
    15: (400, "Error in handling indexed fields"),
    16: (400, "Query string authorization is not enabled"),
    17: (200, "HEC is healthy"),
    18: (503, "HEC is unhealthy, queues are full"),
    19: (503, "HEC is unhealthy, ack service unavailable"),
    20: (503, "HEC is unhealthy, queues are full, ack service unavailable"),
    # Since Splunk 9.
    21: (400, "Invalid token"),
    22: (400, "Token disabled"),
    23: (503, "Server is shutting down"),
    24: (200, "HEC queue approaching capacity"),
    25: (200, "HEC ACK approaching capacity"),
    26: (429, "HEC queue at capacity"),
    27: (429, "HEC ACK channel at capacity"),
}
DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Verdict:
    """A reply of HEC; `number` is its `invalid-event-number`, `ack_id` what acknowledgement is asked with."""

    code: int
    number: int | None = None
    ack_id: int | None = None

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    @property
    def body(self) -> bytes:
        """The JSON that is answered."""
        fields: dict[str, object] = {"text": CODES[self.code][1], "code": self.code}
        if self.number is not None:
            fields["invalid-event-number"] = self.number
        if self.ack_id is not None:
            fields["ackId"] = self.ack_id
        return json.dumps(fields, separators=(",", ":")).encode()


class Refused(Exception):
    """A request is answered with this instead of being looked into further."""

    def __init__(self, code: int) -> None:
        super().__init__(CODES[code][1])
        self.verdict = Verdict(code)


class Indexed(msgspec.Struct, frozen=True, gc=False):
    """One object as it was indexed; `event` is its exact JSON."""

    event: msgspec.Raw
    time: float | None = None
    index: str = ""  # the token's own
    source: str = ""
    sourcetype: str = ""
    host: str = ""
    fields: dict[str, Any] = {}

    @property
    def event_id(self) -> str:
        """The indexed field `event_id`, "" without one."""
        return str(self.fields.get("event_id", ""))


Allowed = Callable[[str], bool]
lines_decoder = msgspec.json.Decoder(Indexed)
BLANK = (b'""', b"null")
SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def unpack(body: bytes, encoding: str) -> bytes | None:
    """The body without its gzip; None for any other encoding (HEC answers 415 to deflate). Raises Refused
    for what is no gzip."""
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        return None
    try:
        return bytes(isal_zlib.decompress(body, 31))
    except IsalError:  # type: ignore[misc]  # typed as a value
        raise Refused(6) from None


def judge(body: bytes, allowed: Allowed, index: str) -> tuple[Sequence[Indexed], Verdict]:
    """What of `body` is indexed, and the answer. Objects stand one behind the other, white space between
    them or not; everything before the first bad one is indexed and nothing from it on.

    allowed: whether an index may be written to. index: where events go that name none."""
    try:
        found = lines_decoder.decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return judge_slowly(body, allowed, index)
    names = {one.index for one in found}
    flat = all(bytes(one.event) not in BLANK and not nested(one.fields) for one in found)
    if flat and "" not in names and all(map(allowed, names)):
        return found, Verdict(0 if found else 5)
    return judge_slowly(body, allowed, index)


def judge_slowly(body: bytes, allowed: Allowed, index: str) -> tuple[Sequence[Indexed], Verdict]:
    """`judge` one object at a time, to find which one is bad and why."""
    text = body.decode("utf-8", errors="surrogateescape")
    indexed: list[Indexed] = []
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return indexed, Verdict(6, len(indexed))
        code = fault_of(value, allowed, index)
        if code:
            # Code 7 reports a number one too high: so does the real service.
            return indexed, Verdict(code, len(indexed) + (code == 7))
        try:
            one = decoded(text[at:end].encode("utf-8", errors="surrogateescape"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return indexed, Verdict(6, len(indexed))
        indexed.append(one if one.index else msgspec.structs.replace(one, index=index))
        at = _skip(text, end)
    return indexed, Verdict(0 if indexed else 5)


def decoded(raw: bytes) -> Indexed:
    """One object. msgspec refuses half a character (`\\ud800`), which JSON allows and nothing says Splunk
    does not. Raises msgspec.DecodeError, UnicodeDecodeError."""
    try:
        return lines_decoder.decode(raw)
    except msgspec.DecodeError:
        masked = SURROGATE.sub(rb"\\u0000", raw)
        one = lines_decoder.decode(masked)
        start = masked.index(bytes(one.event))
        return msgspec.structs.replace(one, event=msgspec.Raw(raw[start : start + len(bytes(one.event))]))


def fault_of(value: Any, allowed: Allowed, index: str) -> int:
    """The code of what is wrong with one object, 0 for nothing."""
    if not isinstance(value, dict):
        return 6
    if value.get("event") is None:
        return 12
    if value["event"] == "":
        return 13
    fields = value.get("fields", {})
    if not isinstance(fields, dict):
        return 6
    if nested(fields):
        return 15
    return 0 if allowed(value.get("index", index)) else 7


def nested(fields: Mapping[str, Any]) -> bool:
    """Whether a field holds an object, which cannot be indexed; several values are fine."""
    return any(isinstance(value, dict) for value in fields.values())


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


@dataclass
class _Channel:
    next_id: int = 0
    due: dict[int, float] = field(default_factory=dict)  # ids never answered true, and when they may be


class Acknowledgements:
    """What one indexer knows; like the real one's, it lives in memory alone.

    Ids count from 0 in each channel. An id that has once been answered true is forgotten, so that it is
    false ever after, whether or not that answer arrived. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._unsafe: list[tuple[float, Sequence[Any]]] = []

    def take(self, channel: str, events: Sequence[Any], now: float, seconds: float) -> int:
        """The id under which `events` are acknowledged, `seconds` from now."""
        known = self._channels.setdefault(channel, _Channel())
        ack_id = known.next_id
        known.next_id += 1
        known.due[ack_id] = now + seconds
        self._unsafe = [one for one in self._unsafe if one[0] > now]
        self._unsafe.append((now + seconds, events))
        return ack_id

    def poll(self, channel: str, ids: Sequence[int], now: float) -> Mapping[str, bool]:
        """The answer for each id: true once, after its time has come, and false otherwise."""
        due = self._channels.setdefault(channel, _Channel()).due
        answer = {}
        for ack_id in ids:
            indexed = due.get(ack_id, math.inf) <= now
            if indexed:
                del due[ack_id]
            answer[str(ack_id)] = indexed
        return answer

    def crash(self, now: float) -> list[Any]:
        """Begin anew, as after `kill -9`; returns the events that were not indexed by then and are lost."""
        lost = [event for due, events in self._unsafe if due > now for event in events]
        self._channels, self._unsafe = {}, []
        return lost


def judge_channel(headers: Mapping[str, str], query: str) -> str:
    """The channel of a request. Raises Refused."""
    channel = headers.get("x-splunk-request-channel") or "".join(parse_qs(query).get("channel", [])[:1])
    if not channel:
        raise Refused(10)
    try:
        return str(uuid.UUID(channel))
    except ValueError:
        raise Refused(11) from None


def ids_in(body: bytes) -> list[int]:
    """The ids that a poll asks for, in `{"acks": [0, 1]}`. Raises Refused."""
    try:
        asked = json.loads(body)["acks"]
    except (ValueError, KeyError, TypeError):
        raise Refused(6) from None
    if not isinstance(asked, list) or not all(type(one) is int and one >= 0 for one in asked):
        raise Refused(6)
    return asked


@dataclass
class Token:
    """One HEC token.

    index: where events go that name none. indexes: those it may write to; empty for all that exist.
    acknowledges: indexer acknowledgement is on (`useACK`), so every request needs a channel.
    """

    value: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "grantex"
    index: str = "main"
    indexes: Sequence[str] = ()
    acknowledges: bool = False
    disabled: bool = False


def judge_token(headers: Mapping[str, str], query: str, tokens: Iterable[Token]) -> Token:
    """The good token that a request carries. Raises Refused."""
    if "token" in parse_qs(query):
        raise Refused(16)  # a token in the URL, which has to be turned on and is not
    authorization = headers.get("authorization")
    if not authorization:
        raise Refused(2)
    given = _given(authorization)
    if not given:
        raise Refused(3)
    for token in tokens:
        if token.value == given:
            if token.disabled:
                raise Refused(1)
            return token
    raise Refused(4)


def _given(authorization: str) -> str:
    """The token in `Splunk <token>`, or in basic authentication as the password of anybody."""
    scheme, _, rest = authorization.partition(" ")
    if scheme == "Splunk":
        return rest.strip()
    if scheme != "Basic":
        return ""
    try:
        return base64.b64decode(rest, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
