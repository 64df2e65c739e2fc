"""Frames by WHATWG's rules, whatever the blocks they arrive in."""

from __future__ import annotations

import random
import time
import tracemalloc
from pathlib import Path

import pytest

from transforms.feed.sse import FrameReader
from transforms.parse import Frame, Oversized

CAPTURE = (Path(__file__).parent / "data" / "stream.sse").read_bytes()
CAPTURED = [line.removeprefix(b"data: ") for line in CAPTURE.split(b"\n") if line.startswith(b"data: ")]


def read(*blocks: bytes, max_frame_bytes: int = 1000) -> list[Frame]:
    reader = FrameReader(max_frame_bytes)
    return [frame for block in blocks for frame in reader.feed(block)]


def in_blocks(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1000, 65536])
def test_the_captured_stream_is_byte_exact_in_blocks_of_any_size(size: int) -> None:
    assert len(CAPTURED) > 30
    assert read(*in_blocks(CAPTURE, size)) == CAPTURED


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        # The examples and rules of WHATWG's "event stream interpretation".
        pytest.param(
            b"data: YHOO\ndata: +2\ndata: 10\n\n", [b"YHOO\n+2\n10"], id="multi-line data joined by LF"
        ),
        pytest.param(
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            [b"first event", b"second event", b" third event"],
            id="comment, id, no space, one space removed",
        ),
        pytest.param(b"data\n\ndata\ndata\n\ndata:", [b"", b"\n"], id="field without colon, half a frame"),
        pytest.param(b"data:test\n\ndata: test\n\n", [b"test", b"test"], id="space after colon is ignored"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"], id="CRLF"),
        pytest.param(b"data: a\r\rdata: b\r\r", [b"a", b"b"], id="CR"),
        pytest.param(b"data: a\r\n\ndata: b\r\r\n", [b"a", b"b"], id="mixed line ends"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", [b"a"], id="byte-order mark at the start"),
        pytest.param(b"data: a\n\n\xef\xbb\xbfdata: b\n\n", [b"a"], id="byte-order mark elsewhere is text"),
        pytest.param(b"event: x\ndata: a\n\n", [b"a"], id="event name"),
        pytest.param(b"foo: 1\nDATA: x\n data: y\ndata: a\n\n", [b"a"], id="unknown fields ignored"),
        pytest.param(b": keepalive\n\n: keepalive\n\n", [], id="keepalives are invisible"),
        pytest.param(b"data: \n\ndata:\n\ndata: a\n\n", [b"", b"", b"a"], id="data without a byte"),
        pytest.param(
            b"id: 7\ndata: a\n\n\n\n\ndata: b\n\n", [b"a", b"b"], id="no phantom events after an id"
        ),
        pytest.param(b"\n\n\ndata: a\n\n\n\ndata: b\n\n", [b"a", b"b"], id="spare blank lines"),
        pytest.param(
            b"data: a\xff\x00\xed\xa0\x80\ndata: \xfe\n\n", [b"a\xff\x00\xed\xa0\x80\n\xfe"], id="bytes"
        ),
        pytest.param(b"data: a\n\ndata: half", [b"a"], id="half frame at EOF"),
        pytest.param(b"data: a\n\ndata: half\n", [b"a"], id="frame without its blank line at EOF"),
        pytest.param(
            "data: a\u2028b\u0085c\n\n".encode(), ["a\u2028b\u0085c".encode()], id="no other line ends"
        ),
    ],
)
def test_event_stream_interpretation(stream: bytes, expected: list[bytes]) -> None:
    for size in (len(stream), 1, 2, 3):
        assert read(*in_blocks(stream, size)) == expected, size


def test_any_blocks_give_the_same_frames() -> None:
    dice = random.Random(1)
    parts = [
        b"data: ab\n\n",
        b"data: c\r\n\r\n",
        b": k\n\n",
        b"data:d\n",
        b"\n",
        b"\r",
        b"id: 1\n",
        b"x",
        b"data: ",
    ]
    for _ in range(300):
        stream = b"".join(dice.choices(parts, k=12))
        whole = read(*in_blocks(stream, 1))
        cuts = sorted(dice.choices(range(len(stream) + 1), k=4))
        blocks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        assert read(*blocks) == whole == read(stream), stream


def test_last_event_id_is_that_of_the_last_whole_frame() -> None:
    reader = FrameReader()
    assert reader.last_event_id == b""
    reader.feed(b"id: 1\ndata: a\n\nid: 2\ndata: b\n")
    assert reader.last_event_id == b"1"
    reader.feed(b"\ndata: c\n\n")
    assert reader.last_event_id == b"2"
    reader.feed(b"id: nul\0\n\n")
    assert reader.last_event_id == b"2"
    reader.feed(b"id\n\n")
    assert reader.last_event_id == b""


def test_the_id_of_the_stream_before_is_in_force_until_another_comes() -> None:
    reader = FrameReader(last_event_id=b"five")
    reader.feed(b"data: a\n\n: k\n\n")
    assert reader.last_event_id == b"five"
    reader.feed(b"id:\ndata: b\n\n")
    assert reader.last_event_id == b""


@pytest.mark.parametrize("value", [b"gr\xc3\xb6\xc3\x9fe", b"abc ", b" lead", b" ", b"\xff\xfe", b"a\tb"])
def test_an_id_is_kept_byte_for_byte(value: bytes) -> None:
    reader = FrameReader()
    reader.feed(b"id: " + value + b"\n\n")
    assert reader.last_event_id == value


def test_an_id_beyond_the_limit_is_none_rather_than_an_older_one() -> None:
    reader = FrameReader(last_event_id=b"older")
    reader.feed(b"id: " + b"x" * 5000 + b"\n\n")
    assert reader.last_event_id == b""


def test_retry_is_honoured_only_when_it_is_digits() -> None:
    reader = FrameReader()
    reader.feed(b"retry: 1_000\n\nretry: -5\n\nretry: x\n\nretry\n\nretry:\n\nretry: \xd9\xa3\n\n")
    assert reader.retry is None
    reader.feed(b"retry: 2500\n")
    assert reader.retry == 2.5
    reader.feed(b"retry: 0\n")
    assert reader.retry == 0.0
    reader.feed(b"retry: " + b"9" * 900 + b"\n")
    assert reader.retry is not None
    assert reader.retry > 300


@pytest.mark.parametrize("size", [1, 10, 5000])
def test_an_oversized_frame_is_cut_and_counted_and_the_next_is_whole(size: int) -> None:
    stream = b"data: a\n\ndata: " + b"x" * 1001 + b"\n\ndata: " + b"y" * 1000 + b"\n\n"
    assert read(*in_blocks(stream, size)) == [b"a", Oversized(b"x" * 1000, 1001), b"y" * 1000]


@pytest.mark.parametrize("size", [1, 10, 5000])
def test_an_oversized_frame_of_many_lines(size: int) -> None:
    stream = b"id: 9\n" + b"data: 12345\n" * 300 + b"\ndata: b\n\n"
    whole = b"\n".join([b"12345"] * 300)
    assert read(*in_blocks(stream, size)) == [Oversized(whole[:1000], len(whole)), b"b"]


@pytest.mark.parametrize("line", [b"x", b": ", b"data: ", b"data: a\ndata: "])
def test_a_flood_without_line_ends_costs_bounded_memory_and_linear_time(line: bytes) -> None:
    reader = FrameReader(max_frame_bytes=100_000)
    block = b"x" * 1000
    reader.feed(line)
    tracemalloc.start()
    started = time.process_time()
    for _ in range(20_000):
        assert reader.feed(block) == []
    seconds = time.process_time() - started
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert seconds < 2.0  # copying what is held for every block would take minutes


def test_a_flood_of_lines_without_a_blank_one_costs_bounded_memory() -> None:
    reader = FrameReader(max_frame_bytes=100_000)
    tracemalloc.start()
    for _ in range(2_000):
        assert reader.feed(b"data: 1234567890\n" * 20) == []
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3_000_000
    assert reader.feed(b"\n") == [Oversized(((b"1234567890\n") * 40_000)[:100_000], 11 * 40_000 - 1)]
