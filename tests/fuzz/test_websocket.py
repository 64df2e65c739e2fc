"""The reader of WebSocket messages against the `websockets` library's own, for any bytes in any blocks."""

from __future__ import annotations

import logging
import struct

from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Frame as TheirFrame
from websockets.frames import Opcode
from websockets.protocol import CLIENT, Protocol

from tests.fuzz.fuzzing import fuzzed
from tests.fuzz.test_event_stream import CUTS, blocks_of
from transforms.feed.websocket import MessageReader
from transforms.parse import Frame, Oversized

SILENT = logging.getLogger("tests.fuzz.websocket")
SILENT.disabled = True


def framed(first: int, payload: bytes, masked: int, form: int) -> bytes:
    """A frame whose length is written in the shortest form that has room, or a longer one."""
    size = len(payload)
    if form == 0 and size < 126:
        return struct.pack("!BB", first, masked | size) + payload
    if form < 2 and size < 1 << 16:
        return struct.pack("!BBH", first, masked | 126, size) + payload
    return struct.pack("!BBQ", first, masked | 127, size) + payload


SIZES = st.sampled_from([0, 1, 2, 5, 124, 125, 126, 127, 128, 300])
PAYLOADS = st.one_of(
    SIZES.map(lambda size: b"x" * size),
    st.binary(max_size=6),
    st.sampled_from(
        [b"", b"\x03", b"\x03\xe8", b"\x03\xf5Too many connections", b"\x03\xed", b"\x03\xe8\xff"]
    ),
)
WHOLE = st.builds(framed, st.just(0x81), PAYLOADS, st.just(0), st.just(0))
GOOD = st.builds(
    framed,
    st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8A]),
    PAYLOADS.filter(lambda payload: len(payload) <= 125),
    st.just(0),
    st.integers(0, 2),
)
ANY = st.builds(framed, st.integers(0, 255), PAYLOADS, st.sampled_from([0, 0, 0, 128]), st.integers(0, 2))
CLOSES = st.builds(framed, st.just(0x88), PAYLOADS, st.just(0), st.just(0))
BODIES = st.lists(st.one_of(WHOLE, WHOLE, GOOD, GOOD, ANY, CLOSES, st.binary(max_size=12)), max_size=8).map(
    b"".join
)


def theirs(body: bytes) -> tuple[list[bytes], Protocol]:
    """The messages that the library finds, and how it stands afterwards."""
    protocol = Protocol(CLIENT, max_size=None, logger=SILENT)
    protocol.receive_data(body)
    messages: list[bytes] = []
    parts: list[bytes] = []
    for each in protocol.events_received():
        if isinstance(each, TheirFrame) and each.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            parts.append(bytes(each.data))
            if each.fin:
                messages.append(b"".join(parts))
                parts = []
    return messages, protocol


def ours(body: bytes, cuts: list[int], limit: int = 10**6) -> tuple[list[Frame], MessageReader]:
    reader = MessageReader(limit)
    return [frame for block in blocks_of(body, cuts) for frame in reader.feed(block)], reader


@fuzzed(body=BODIES, cuts=CUTS)
def test_messages_are_the_library_s(body: bytes, cuts: list[int]) -> None:
    messages, protocol = theirs(body)
    found, reader = ours(body, cuts)
    assert found == messages
    if protocol.close_rcvd is not None:
        assert reader.close == protocol.close_rcvd
    elif protocol.parser_exc is not None:
        assert reader.fault
    else:
        assert reader.close is None
    if reader.fault:  # seen in a frame's head, before its payload is there
        assert protocol.close_rcvd is None
        assert protocol.parser_exc is None or isinstance(protocol.parser_exc, (ProtocolError, ValueError))


@fuzzed(body=BODIES, cuts=CUTS)
def test_the_split_changes_nothing(body: bytes, cuts: list[int]) -> None:
    found, reader = ours(body, cuts)
    at_once, other = ours(body, [])
    one_by_one, third = ours(body, list(range(len(body))))
    assert found == at_once == one_by_one
    assert (reader.close, reader.fault) == (other.close, other.fault) == (third.close, third.fault)
    assert reader.ping == other.ping == third.ping


@fuzzed(body=BODIES, cuts=CUTS, limit=st.integers(1, 200))
def test_what_is_too_long_is_told_apart_and_the_rest_stays(body: bytes, cuts: list[int], limit: int) -> None:
    messages, _ = theirs(body)
    expected: list[Frame] = [
        each if len(each) <= limit else Oversized(each[:limit], len(each)) for each in messages
    ]
    assert ours(body, cuts, limit)[0] == expected
