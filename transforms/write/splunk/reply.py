"""What a reply of Splunk's HTTP Event Collector means for each event of a batch: pure functions.

Codes and statuses are those of Splunk's "Troubleshoot HTTP Event Collector". Two facts carry most of it:
with codes 6, 12, 13 and 15 `invalid-event-number` is the zero-based index of the first bad object,
everything before it is indexed and nothing from it on; with code 7 that number is one too high.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from transforms.retry import retry_after
from transforms.write.contract import Outcome
from transforms.write.failure import KEPT, is_credential, is_delivered, refused
from transforms.write.over_http.connection import Reply

# Token disabled, required, malformed, unknown; 21 and 22 are Splunk 9's, with status 400.
CREDENTIAL = frozenset({1, 2, 3, 4, 21, 22})
# Shutting down is 23; 26 and 27, queues or an acknowledgement channel at capacity, come with status 429.
BUSY = frozenset({8, 9, 18, 19, 20, 23, 26, 27})
# Success; 24 and 25 say with status 200 that queues or acknowledgements approach their capacity.
TAKEN = frozenset({None, 0, 24, 25})
# The fault of one object of the request: not JSON, no "event", a blank one, fields it cannot index.
ONE_EVENT = frozenset({6, 12, 13, 15, 16})
NO_DATA = 5
INVALID_FORMAT = 6
WRONG_INDEX = 7
UNKNOWN_CHANNEL = 11
CHANNEL = {
    10: "this HEC token has indexer acknowledgement: give --splunk_acknowledge=true, or a token without it",
    UNKNOWN_CHANNEL: "something in between puts a channel of its own into our requests",
    14: "this HEC token has no indexer acknowledgement: turn it on for the token (useACK), or leave "
    "--splunk_acknowledge out",
}
MENDED = f"{KEPT} when this is mended"


class HecReply(msgspec.Struct, frozen=True):
    """The body of a reply; whatever is not HEC's has the code None."""

    code: int | None = None
    text: str = ""
    invalid: int | None = msgspec.field(name="invalid-event-number", default=None)
    ack_id: int | None = msgspec.field(name="ackId", default=None)


decoder = msgspec.json.Decoder(HecReply)


def read_reply(body: bytes) -> HecReply:
    """HEC's own words, or an empty reply when a proxy (or nobody) wrote this body."""
    try:
        reply = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return HecReply()
    shown = "".join(letter for letter in reply.text[:200] if letter.isprintable())
    return HecReply(reply.code, shown, reply.invalid, reply.ack_id)


def is_refused_token(reply: Reply) -> bool:
    """Whether HEC refuses the token, so that reading it again may help."""
    if reply.status == 400:
        return read_reply(reply.body).code in CREDENTIAL
    return is_credential(reply.status)


def outcome_of(
    where: str, index: str, status: int, headers: Mapping[str, str], body: bytes, count: int, now: float
) -> Outcome | None:
    """The outcome of a reply for a batch of `count` events; None when all of them are delivered.

    where: the service as a person knows it; index: the index that was asked for; now: seconds since the
    epoch. A 2xx counts as delivered whatever its body is (it may have been cut), unless HEC's own code in
    it says otherwise.
    """
    reply = read_reply(body)
    if is_delivered(status) and reply.code in TAKEN:
        return None
    said = f"{reply.text or 'no text'} (code {reply.code}, status {status})"
    everything = range(count)
    if reply.code in CREDENTIAL:
        cause = f"{where} refused the HEC token: {said}. {MENDED}: enable or correct --splunk_hec_token."
        return Outcome(later=everything, cause=cause, blocked=True)
    if reply.code == WRONG_INDEX:
        return wrong_index(where, index, said, reply.invalid, count)
    if reply.code in BUSY:
        wait = retry_after(headers, now)
        return Outcome(later=everything, cause=f"{where} is busy: {said}. {KEPT}.", retry_after=wait)
    if reply.code in CHANNEL:
        cause = f"{where} took nothing: {said}. {MENDED}: {CHANNEL[reply.code]}."
        return Outcome(later=everything, cause=cause, blocked=True)
    if reply.code == NO_DATA:  # never an event's fault: there always is data when it leaves
        cause = f"{where} received an empty request: {said}. {MENDED}: something in between drops bodies."
        return Outcome(later=everything, cause=cause, blocked=True)
    if status == 400 and reply.code is not None and (reply.code in ONE_EVENT or reply.invalid is not None):
        return one_event(where, said, reply, count)
    return refused(where, status, headers, count, now)


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
    """The index is ours and the same for all events, so this is never one event's fault: it blocks.

    The number is one too high: with `n`, events 0 to n - 2 are indexed (the index was taken away while
    the request was read) and n - 1 is the refused one. A number that makes no sense counts as "nothing
    was indexed, as far as is known".
    """
    cause = (
        f"{where} has no index {index!r}, or this token may not write to it: {said}. {MENDED}: "
        "create the index, allow it for the token, or correct --splunk_index."
    )
    if number is not None and 1 <= number <= count:
        return Outcome(later=range(number - 1, count), cause=cause, blocked=True)
    return Outcome(later=range(count), cause=cause, blocked=True, unknown=True)
