"""The reader of event streams against WHATWG's text, for any bytes in blocks of any size."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.event_stream_reference import interpret
from tests.fuzz.fuzzing import fuzzed
from transforms.feed.sse import MAX_ID_BYTES, FrameReader
from transforms.parse import Frame, Oversized

PIECES = [
    *(
        b"data: ",
        b"data:",
        b"data",
        b"id: ",
        b"id",
        b"retry: ",
        b"event: x",
        b": keepalive",
        b"Data:",
        b" data: ",
    ),
    *(
        b"\n",
        b"\n\n",
        b"\r",
        b"\r\n",
        b"\r\n\r\n",
        b"\n\r",
        b"\xef\xbb\xbf",
        b"\xef\xbb",
        b"\0",
        b"\xff",
        b" ",
    ),
    *(b"a", b'{"id":"a"}', b"12", b"0", b"99999999999999999999", "grüße…\u2028".encode()),
    *(b'data: {"id":"evt_1"}\n\n', b"data: x\n\ndata: y\n\n", b"id: 7\n\n", b"retry: 10\n"),
]
BODIES = st.one_of(st.lists(st.sampled_from(PIECES), max_size=30).map(b"".join), st.binary(max_size=60))
CUTS = st.lists(st.integers(0, 300), max_size=12)


def blocks_of(body: bytes, cuts: list[int]) -> list[bytes]:
    """`body` in blocks that end at `cuts`, empty ones included."""
    ends = sorted(min(cut, len(body)) for cut in cuts)
    return [body[start:end] for start, end in zip([0, *ends], [*ends, len(body)], strict=True)]


@fuzzed(body=BODIES, cuts=CUTS, earlier=st.sampled_from([b"", b"before"]))
def test_frames_ids_and_retry_are_whatwg_s(body: bytes, cuts: list[int], earlier: bytes) -> None:
    reader = FrameReader(last_event_id=earlier)
    frames = [frame for block in blocks_of(body, cuts) for frame in reader.feed(block)]
    expected = interpret(body, earlier)
    assert frames == expected.frames
    assert reader.last_event_id == expected.last_event_id[: MAX_ID_BYTES + 1]
    if expected.retry is None:
        assert reader.retry is None
    else:
        assert reader.retry is not None
        assert min(reader.retry, 1e6) == min(expected.retry / 1000, 1e6)


@fuzzed(body=BODIES, cuts=CUTS, limit=st.integers(1, 40))
def test_what_is_too_large_is_told_apart_and_the_rest_stays(body: bytes, cuts: list[int], limit: int) -> None:
    reader = FrameReader(limit)
    frames = [frame for block in blocks_of(body, cuts) for frame in reader.feed(block)]
    expected: list[Frame] = [
        frame if len(frame) <= limit else Oversized(frame[:limit], len(frame))
        for frame in interpret(body).frames
    ]
    assert frames == expected
