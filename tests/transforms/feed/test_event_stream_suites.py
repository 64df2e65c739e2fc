"""The field's own cases for event streams, whole, byte by byte and cut at every place.

The facts of web-platform-tests' eventsource/format-* and event-data, of Chromium's parser tests, and of the
contract tests that SSE clients are held to; the names are theirs. What is an event with empty data to them is
a frame without a byte to us.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.fuzz.event_stream_reference import interpret
from transforms.feed.sse import FrameReader
from transforms.parse import Frame, Oversized

BOM = b"\xef\xbb\xbf"
LONG = b"x" * 2048

FRAMES = {
    "format-bom": (BOM + b"data:1\n\n" + BOM + b"data:2\n\ndata:3\n\n", [b"1", b"3"]),
    "format-bom-2": (BOM + BOM + b"data:1\n\ndata:2\n\ndata:3\n\n", [b"2", b"3"]),
    "half a byte-order mark": (BOM[:2] + b"data:1\n\ndata:2\n\n", [b"2"]),
    "format-comments": (
        b"data:1\r:\0\n:\r\ndata:2\n:" + LONG + b"\rdata:3\n:data:fail\r:" + LONG + b"\ndata:4\n\n",
        [b"1\n2\n3\n4"],
    ),
    "format-data-before-final-empty-line": (b"retry:1000\ndata:test1\n\nid:test\ndata:test2\n", [b"test1"]),
    "format-field-data": (b"data:\n\ndata\ndata\n\ndata:test\n\n", [b"", b"\n", b"test"]),
    "event-data": (
        b"data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nData:data\n\ndata\n\ndata:end\n\n",
        [b"msg\nmsg", b"", b"end"],
    ),
    "format-field-event": (b"event:test\ndata:x\n\ndata:x\n\n", [b"x", b"x"]),
    "format-field-event-empty": (b"event: \ndata:data\n\n", [b"data"]),
    "format-field-parsing": (
        b"data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\n"
        b"data:4\n\n",
        [b"\0\n 2\n1\n3\n\n4"],
    ),
    "format-field-unknown": (
        b"data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [b"test\n\ntest"],
    ),
    "format-leading-space": (b"data:\ttest\rdata: \ndata:test\n\n", [b"\ttest\n\ntest"]),
    "format-newlines": (b"data:test\r\ndata\ndata:test\r\n\r", [b"test\n\ntest"]),
    "format-null-character": (b"data:\0\n\n\n\n", [b"\0"]),
    "format-utf-8": ("data:ok…\n\n".encode(), ["ok…".encode()]),
    "not UTF-8, kept as it came": (b"data:\xff\xed\xa0\x80\n\n", [b"\xff\xed\xa0\x80"]),
    "no other line ends": (
        "data:a\u2028b\u0085c\x0bd\x0ce\n\n".encode(),
        ["a\u2028b\u0085c\x0bd\x0ce".encode()],
    ),
    "only line ends": (b"\r\n\n\r\r\n\r", []),
    "CR CR": (b"data:a\r\rdata:b\r\r", [b"a", b"b"]),
    "LF CR is two ends": (b"data:a\n\rdata:b\n\r", [b"a", b"b"]),
    "CR LF LF": (b"data:a\r\n\ndata:b\r\n\n", [b"a", b"b"]),
    "one blank is taken off, no more": (b"data:  a\ndata:a \n\n", [b" a\na "]),
    "a colon in the value": (b'data: {"a":1}\n\n', [b'{"a":1}']),
    "a comment alone": (b": keepalive\n\n:\n\n", []),
    "a comment inside": (b"data:a\n:b\ndata:c\n\n", [b"a\nc"]),
    "id and retry alone are no frame": (b"id:1\n\nretry:1\n\nevent:x\n\n", []),
    "a large frame": (b"data:" + b"y" * 50_000 + b"\n\n", [b"y" * 50_000]),
    "a large frame of many lines": (b"data:abcdefgh\n" * 3000 + b"\n", [b"\n".join([b"abcdefgh"] * 3000)]),
}


def blocks_of(body: bytes) -> list[list[bytes]]:
    """The body whole, byte by byte, in threes, and, when that is bearable, cut at every place."""
    ways = [
        [body],
        [body[at : at + 1] for at in range(len(body))],
        [body[at : at + 3] for at in range(0, len(body), 3)],
    ]
    if len(body) < 5000:
        ways += [[body[:at], body[at:]] for at in range(len(body) + 1)]
    return ways


def read(blocks: list[bytes]) -> tuple[list[Frame], FrameReader]:
    reader = FrameReader()
    return [frame for block in blocks for frame in reader.feed(block)], reader


@pytest.mark.parametrize("name", FRAMES)
def test_frames(name: str) -> None:
    body, frames = FRAMES[name]
    assert interpret(body).frames == frames, "the reference itself"
    for blocks in blocks_of(body):
        assert read(blocks)[0] == frames, blocks


IDS = {
    "format-field-id": (b"id: \xe2\x80\xa6\ndata:hello\n\n", "…".encode()),
    "format-field-id-2": (b"data:1\nid:1\n\ndata:2\n\nid:2\ndata:3\n\n", b"2"),
    "format-field-id-3": (b"id:1\ndata:1\n\nid\ndata:2\n\n", b""),
    "format-field-id-null": (b"id:\0\ndata:x\n\nid:x\0\ndata:x\n\nid:x\0x\ndata:x\n\n", b""),
    "an id with a NUL leaves the one before": (b"id:1\ndata:x\n\nid:2\0\ndata:x\n\n", b"1"),
    "last event id should not be reset": (b"data:1\nid:1\n\nid:2\ndata:2\n\ndata:3\n\n", b"2"),
    "an id without data counts": (b"id:9\n\ndata:x\n\n", b"9"),
    "an empty id takes it back": (b"id:9\n\ndata:x\n\nid:\n\ndata:y\n\n", b""),
    "not before its blank line": (b"id:1\ndata:x\n\nid:2\ndata:y\n", b"1"),
    "the last of a frame counts": (b"id:1\nid:2\ndata:x\n\n", b"2"),
    "blanks belong to it": (b"id:  a \n\n", b" a "),
}


@pytest.mark.parametrize("name", IDS)
def test_ids(name: str) -> None:
    body, last = IDS[name]
    assert interpret(body).last_event_id == last, "the reference itself"
    for blocks in blocks_of(body):
        assert read(blocks)[1].last_event_id == last, blocks


RETRIES: dict[str, tuple[bytes, float | None]] = {
    "format-field-retry": (b"retry:03000\ndata:x\n\n", 3.0),
    "format-field-retry-bogus": (b"retry:3000\nretry:1000x\ndata:x\n\n", 3.0),
    "format-field-retry-empty": (b"retry\ndata:test\n\n", None),
    "an empty one changes nothing": (b"retry:2000\n\nretry:\n\n", 2.0),
    "zero is a time": (b"retry:2000\n\nretry:0\n\n", 0.0),
    "at once, before the blank line": (b"retry:10\n", 0.01),
    "a sign is bogus": (b"retry:+5\nretry:-5\n", None),
    "a fraction is bogus": (b"retry:1.5\n", None),
    "blanks are bogus": (b"retry:  5\nretry:5 \n", None),
    "digits of another script are bogus": ("retry:٣\nretry:\uff15\n".encode(), None),
}


@pytest.mark.parametrize("name", RETRIES)
def test_retry(name: str) -> None:
    body, seconds = RETRIES[name]
    reference = interpret(body).retry
    assert (None if reference is None else reference / 1000) == seconds, "the reference itself"
    for blocks in blocks_of(body):
        assert read(blocks)[1].retry == seconds, blocks


def test_an_oversized_frame_is_told_apart_wherever_it_is_cut() -> None:
    body = b"data:a\n\ndata: " + b"x" * 60 + b"\n\ndata:b\n\n"
    for first, second in pairwise(range(len(body) + 1)):
        reader = FrameReader(max_frame_bytes=50)
        found = reader.feed(body[:first]) + reader.feed(body[first:second]) + reader.feed(body[second:])
        assert found == [b"a", Oversized(b"x" * 50, 60), b"b"]
