"""How Splunk's HTTP Event Collector judges a request: pure, so that the practice server only listens."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from isal import isal_zlib

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
}
DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply of HEC; `number` is its `invalid-event-number`."""

    code: int
    number: int | None = None

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    @property
    def body(self) -> bytes:
        fields: dict[str, object] = {"text": CODES[self.code][1], "code": self.code}
        if self.number is not None:
            fields["invalid-event-number"] = self.number
        return json.dumps(fields, separators=(",", ":")).encode()


class Indexed(msgspec.Struct, frozen=True, gc=False):
    """One object as it was indexed; `event` is its exact JSON."""

    event: msgspec.Raw
    time: float | None = None
    index: str = "main"
    source: str = ""
    sourcetype: str = ""
    host: str = ""
    fields: dict[str, str] = {}

    @property
    def event_id(self) -> str:
        """The indexed field `event_id`, "" without one."""
        return self.fields.get("event_id", "")


lines_decoder = msgspec.json.Decoder(Indexed)
BLANK = (b'""', b"null")


def judge_token(authorization: str | None, token: str, disabled: bool) -> Answer | None:
    """The refusal that an `Authorization` header earns; None when the token is good."""
    if not authorization:
        return Answer(2)
    scheme, _, given = authorization.partition(" ")
    if scheme != "Splunk" or not given.strip():
        return Answer(3)
    if given.strip() != token:
        return Answer(4)
    return Answer(1) if disabled else None


def unpack(body: bytes, encoding: str) -> bytes | None:
    """The body without its gzip; None for any other encoding (HEC answers 415 to deflate)."""
    if encoding in ("", "identity"):
        return body
    return bytes(isal_zlib.decompress(body, 31)) if encoding == "gzip" else None


def judge(body: bytes, indexes: Collection[str]) -> tuple[Sequence[Indexed], Answer]:
    """What of `body` is indexed, and the answer. Objects stand one behind the other, white space between
    them or not; everything before the first bad one is indexed and nothing from it on."""
    try:
        found = lines_decoder.decode_lines(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return judge_slowly(body, indexes)
    if all(one.index in indexes and bytes(one.event) not in BLANK for one in found):
        return found, Answer(0 if found else 5)
    return judge_slowly(body, indexes)


def judge_slowly(body: bytes, indexes: Collection[str]) -> tuple[Sequence[Indexed], Answer]:
    """`judge` one object at a time, to find which one is bad and why."""
    text = body.decode("utf-8", errors="surrogateescape")
    indexed: list[Indexed] = []
    at = _skip(text, 0)
    while at < len(text):
        try:
            value, end = DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return indexed, Answer(6, len(indexed))
        code = fault_of(value, indexes)
        if code:
            # Code 7 reports a number one too high: so does the real service.
            return indexed, Answer(code, len(indexed) + (code == 7))
        raw = text[at:end].encode("utf-8", errors="surrogateescape")
        try:
            indexed.append(lines_decoder.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return indexed, Answer(6, len(indexed))
        at = _skip(text, end)
    return indexed, Answer(0 if indexed else 5)


def fault_of(value: Any, indexes: Collection[str]) -> int:
    """The code of what is wrong with one object, 0 for nothing."""
    if not isinstance(value, dict):
        return 6
    if value.get("event") is None:
        return 12
    if value["event"] == "":
        return 13
    fields = value.get("fields", {})
    if not isinstance(fields, dict) or any(not isinstance(field, str) for field in fields.values()):
        return 15
    return 0 if value.get("index", "main") in indexes else 7


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at
