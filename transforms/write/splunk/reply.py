"""What a reply of Splunk's HTTP Event Collector means for each event of a batch: pure functions.

Codes and statuses are those of Splunk's "Troubleshoot HTTP Event Collector". Two facts carry most of it:
with codes 6, 12, 13 and 15 `invalid-event-number` is the zero-based index of the first bad object,
everything before it is indexed and nothing from it on; with code 7 that number is one too high.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from transforms.retry import retry_after
from transforms.secret import shown
from transforms.write.advice import HTTP, SPLUNK, Advice
from transforms.write.answer import decoded, described, is_receipt
from transforms.write.contract import Outcome
from transforms.write.failure import failed, is_credential, is_delivered, refused
from transforms.write.over_http.connection import Reply

# Token disabled, required, malformed, unknown; 21 and 22 are Splunk 9's, with status 400.
CREDENTIAL = frozenset({1, 2, 3, 4, 21, 22})
# Shutting down is 23; 26 and 27, queues or an acknowledgement channel at capacity, come with status 429.
BUSY = frozenset({8, 9, 18, 19, 20, 23, 26, 27})
# Success; 24 and 25 say with status 200 that queues or acknowledgements approach their capacity.
TAKEN = frozenset({0, 24, 25})
_TAKEN_TEXTS = tuple(b"%d" % code for code in TAKEN)
# The fault of one object of the request: not JSON, no "event", a blank one, fields it cannot index.
ONE_EVENT = frozenset({6, 12, 13, 15, 16})
NO_DATA = 5
INVALID_FORMAT = 6
WRONG_INDEX = 7
UNKNOWN_CHANNEL = 11
SET_UP: Mapping[int, Advice] = {
    NO_DATA: SPLUNK["no_data"],  # never an event's fault: there always is data when it leaves
    10: SPLUNK["channel_needed"],
    UNKNOWN_CHANNEL: SPLUNK["channel_wrong"],
    14: SPLUNK["no_acknowledgement"],
}
# What receivers that are not Splunk's say in place of its object.
PLAIN = (b"ok", b'"ok"', b"success", b'"success"')
# A receipt that ends early: HEC's own members, as far as they came.
_PAIR = rb'\s*"(?:text|code|ackId|ackID)"\s*:\s*(?:"[^"\\]{0,200}"|\d{1,20})\s*'
_MEMBER = rb"(?:text|tex|te|t|code|cod|co|c|ackId|ackI|ack|ac|a)?"
_VALUE = rb'(?:"[^"\\]{0,200}"?|\d{0,20})'
_CUT = re.compile(rb'\{(?:%s,)*\s*(?:"(?:%s(?:"\s*(?::\s*%s)?)?)?)?\s*' % (_PAIR, _MEMBER, _VALUE))
_CODE = re.compile(rb'"code"\s*:\s*(\d+)')


class HecReply(msgspec.Struct, frozen=True):
    """The body of a reply; whatever is not HEC's has the code None."""

    code: int | None = None
    text: str = ""
    invalid: int | None = msgspec.field(name="invalid-event-number", default=None)
    ack_id: int | None = msgspec.field(name="ackId", default=None)


decoder = msgspec.json.Decoder(HecReply)


def read_reply(status: int, body: bytes) -> HecReply:
    """HEC's own words, or an empty reply when a proxy (or nobody) wrote this body. A code that HEC never
    sends with this status is not HEC's word either."""
    reply = decoded(decoder.decode, body) or HecReply()
    if not fits(status, reply.code):
        return HecReply()
    return HecReply(reply.code, shown(reply.text), reply.invalid, reply.ack_id)


def fits(status: int, code: int | None) -> bool:
    """Whether HEC, or a receiver that speaks like it, sends `code` with `status`."""
    if code in TAKEN:
        return is_delivered(status)
    if code in CREDENTIAL:
        return status in (400, 401, 403)
    if code in BUSY:
        return status in (429, 500, 503)
    return status == 400


def is_refused_token(reply: Reply) -> bool:
    """Whether HEC refuses the token, so that reading it again may help."""
    if is_delivered(reply.status):
        return False  # HEC never says so with it
    return is_credential(reply.status) or read_reply(reply.status, reply.body).code in CREDENTIAL


def is_taken(status: int, body: bytes) -> bool:
    """Whether HEC itself, or a receiver that speaks like it, says that it has taken the request."""
    if not is_delivered(status):
        return False
    return is_receipt(body, _says_taken, PLAIN) or _begins_as_receipt(body)


def _says_taken(members: dict[str, Any]) -> bool:
    code = members.get("code")
    failed = members.get("error") or members.get("errors") or members.get("success") is False
    return type(code) is int and code in TAKEN and not failed


def _begins_as_receipt(body: bytes) -> bool:
    """Whether the body is the beginning of a receipt: a cut behind a 2xx still counts."""
    if _CUT.fullmatch(body) is None:
        return False
    code = _CODE.search(body)
    if code is None:
        return True
    at_its_end = code.end() == len(body)  # more digits may have followed
    return any(code[1] == taken or (at_its_end and taken.startswith(code[1])) for taken in _TAKEN_TEXTS)


def outcome_of(
    where: str,
    refused_index: Callable[[int | None], str],
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    count: int,
    now: float,
) -> Outcome | None:
    """The outcome of a reply for a batch of `count` events; None when all of them are delivered.

    where: the service as a person knows it; refused_index: the index that was asked for, by the number that
    HEC gives with it; now: seconds since the epoch.
    """
    if is_taken(status, body):
        return None
    later = range(count)
    if is_delivered(status):
        said = f"{status}, {described(headers, body)}"
        return failed(where, HTTP["not_its_words"], later, said, unknown=True)
    reply = read_reply(status, body)
    said = f"{reply.text or 'no text'} (code {reply.code}, status {status})"
    shown_code = f"{reply.text or 'no text'}, code {reply.code}, status {status}"
    if reply.code in CREDENTIAL:
        return failed(where, SPLUNK["token"], later, shown_code)
    if reply.code == WRONG_INDEX:
        return wrong_index(where, refused_index(reply.invalid), shown_code, reply.invalid, count)
    if reply.code in BUSY:
        return failed(where, SPLUNK["busy"], later, shown_code, wait=retry_after(headers, now))
    if advice := SET_UP.get(reply.code or 0):
        return failed(where, advice, later, shown_code)
    if reply.code in ONE_EVENT or (reply.code is not None and reply.invalid is not None):
        return one_event(where, said, reply, count)
    own = reply.code is not None
    return refused(where, status, headers, count, now, body, own, "--splunk_hec_token")


def one_event(where: str, said: str, reply: HecReply, count: int) -> Outcome:
    """One object of the request is at fault: what stood before it is indexed, what stood after it is not."""
    reason = f"hec_{reply.code}: {said}"
    bad = reply.invalid
    if count == 1:
        return Outcome(rejected={0: reason}, cause=f"{where} refused an event for good: {said}.")
    if bad is not None and 0 <= bad < count:
        cause = f"{where} refused one event for good: {said}. Those behind it are sent again at once."
        return Outcome(rejected={bad: reason}, later=range(bad + 1, count), cause=cause, retry_after=0.0)
    # Splunk does not say which one it is, so nothing may be rejected yet. Halving finds it: a half without
    # it passes, and at last it stands alone. What stood before it may have been indexed: a repeat, counted.
    cause = f"{where} refused an event without naming it: {said}. The batch is sent again in halves."
    return Outcome(later=range(count), cause=cause, too_large=True, unknown=True)


def wrong_index(where: str, index: str, said: str, number: int | None, count: int) -> Outcome:
    """Which index an event goes to is ours to say, so this is never one event's fault: it blocks.

    The number is one too high: with `n`, events 0 to n - 2 are indexed (the index was taken away while
    the request was read) and n - 1 is the refused one. A number that makes no sense counts as "nothing
    was indexed, as far as is known".
    """
    known = number is not None and 1 <= number <= count
    later = range(number - 1, count) if number is not None and known else range(count)
    return failed(where, SPLUNK["index"], later, said, unknown=not known, index=index)
