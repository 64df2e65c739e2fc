"""An event as a Datadog log: Datadog's shape, escaped fast, and never longer than Datadog keeps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from transforms.event import Event
from transforms.write.created_at import epoch_milliseconds

# Datadog keeps 1 MB of a log, cuts the rest away and answers 202 all the same.
MAX_LOG = 1_000_000
# It drops logs with a timestamp older than 18 h, or more than 2 h ahead, and answers 202 as well. Five
# minutes are left for clocks that differ.
MAX_LATE = 18 * 3600.0 - 300.0
MAX_EARLY = 2 * 3600.0 - 300.0
LATE = b",grantex_late:true"
EARLY = b",grantex_early:true"
CUT = b",grantex_cut:true"

# A tag is at most 200 characters of letters, digits, "_", "-", ":", "." and "/", and a comma ends it.
NOT_IN_TAG = re.compile(r"[^\w:./-]")
MAX_TYPE = 195

# An id is not cut: it is how an event is found again. One that is longer has no place in a log, whatever JSON
# makes of it: a character may become six bytes.
MAX_ID = 100_000
# Up to here a log's size is estimated by its worst case: a byte that JSON does not allow becomes six.
SMALL = 700
WORST = 6
DIGITS = 20  # of a timestamp, at most

encode_text = msgspec.json.encode


class LogForm:
    """The text around an event's JSON in a log."""

    def __init__(self, source: str, host: str, service: str, tags: Sequence[str]) -> None:
        self._tags = "".join(f",{tag}" for tag in tags)
        self._head = b'{"ddsource":' + encode_text(source) + b',"ddtags":"type:'
        hostname, named = encode_text(host), encode_text(service)
        self._middle = b'","hostname":' + hostname + b',"service":' + named + b',"id":'
        longest = len(self._head) + len(encode_text(self._tags)) + len(LATE + CUT) + len(self._middle)
        self._fixed = longest + len(TIMESTAMP) + DIGITS + len(MESSAGE) + len(END)

    def size(self, event: Event) -> int:
        """At least the bytes that `encode` makes of `event`, and at most MAX_LOG."""
        raw = event.raw
        around = self._fixed + len(type_tag(event.type)) + len(encode_text(event.id))
        if len(raw) <= SMALL:
            return around + WORST * len(raw)
        return min(MAX_LOG, around + len(escaped(raw)))

    def too_old(self, events: Sequence[Event], now: float) -> list[int]:
        """The indexes of events that Datadog would drop as too old at `now` (seconds since the epoch)."""
        oldest = int((now - MAX_LATE) * 1000)
        times = [epoch_milliseconds(event.created_at) for event in events]
        return [index for index, time in enumerate(times) if time is not None and time < oldest]

    def encode(self, events: Sequence[Event], now: float) -> bytes:
        """A JSON array of logs that are sent at `now` (seconds since the epoch)."""
        parts: list[bytes] = [b"["]
        add = parts.extend
        oldest, newest = int((now - MAX_LATE) * 1000), int((now + MAX_EARLY) * 1000)
        head, tags, middle = self._head, encode_text(self._tags)[1:-1], self._middle
        for event in events:
            time = epoch_milliseconds(event.created_at)
            note = b""
            stamp: tuple[bytes, ...] = ()
            if time is not None:
                if time < oldest:
                    note = LATE  # Datadog would drop it, so it is stamped on arrival and marked
                elif time > newest:
                    note = EARLY
                else:
                    stamp = (TIMESTAMP, b"%d" % time)
            message = escaped(event.raw)
            if len(message) > MAX_LOG // 2 and self.size(event) >= MAX_LOG:
                note += CUT
                message = self._cut(event)
            add(
                (
                    head,
                    type_tag(event.type),
                    tags,
                    note,
                    middle,
                    encode_text(event.id),
                    *stamp,
                    MESSAGE,
                    message,
                    END,
                )
            )
        parts[-1] = b"}]"
        return b"".join(parts)

    def _cut(self, event: Event) -> bytes:
        """As much of the event as a log holds, and a mark that says so; the mark alone, when nothing fits."""
        raw = event.raw
        mark = f" … [cut by grantex-beam: the event has {len(raw)} bytes]".encode()
        around = self._fixed + len(type_tag(event.type)) + len(encode_text(event.id))
        keep = room = MAX_LOG - around
        while True:
            message = escaped(raw[:keep] + mark)
            if len(message) <= room or keep <= 0:
                return message
            keep = max(0, keep - (len(message) - room))  # each byte less is at least one escaped byte less


TIMESTAMP = b',"timestamp":'
MESSAGE = b',"message":'
END = b"},"


def escaped(raw: bytes) -> bytes:
    """An event's JSON as a JSON string, quotes included; what is not UTF-8 in it is replaced."""
    try:
        return encode_text(raw.decode())
    except UnicodeDecodeError:
        return encode_text(raw.decode(errors="replace"))


def type_tag(event_type: str) -> bytes:
    """The value of the tag `type`, as text within a JSON string."""
    return short_type_tag(event_type[:MAX_TYPE])


@lru_cache(maxsize=1024)
def short_type_tag(event_type: str) -> bytes:
    """`type_tag` for text that may live on as a key."""
    return encode_text(NOT_IN_TAG.sub("_", event_type) or "none")[1:-1]
