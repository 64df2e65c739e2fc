"""What is an event, for the feed and for a sink alike, against the standard library's JSON."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.fuzzing import fuzzed
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event
from transforms.parse import as_chunk, parse_frame, parse_frames

TEXTS = st.one_of(
    st.sampled_from(["evt_1", "", "grant.created", "2026-03-01T12:00:00Z", "é…😀", "\ud800"]), st.text()
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.fixed_dictionaries(
    {}, optional={"id": TEXTS | VALUES, "type": TEXTS | VALUES, "createdAt": TEXTS | VALUES, "data": VALUES}
)


def written(value: Any, ascii_only: bool, spaced: bool) -> bytes:
    """JSON as different writers write it."""
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1 if spaced else None)
    return text.encode(errors="surrogatepass")


JSONS = st.builds(written, OBJECTS | VALUES, st.booleans(), st.booleans())


@st.composite
def damaged(draw: Any) -> bytes:
    """JSON with a few bytes changed, taken out or put in."""
    raw = bytearray(draw(JSONS))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from(
                [b"", b'"', b"\\", b"{", b"]", b",", b"\xff", b"\0", b"\\ud800", b"NaN", b"\xef\xbb\xbf"]
            )
        )
    return bytes(raw)


FRAMES = st.one_of(JSONS, damaged(), st.binary(max_size=40))


def word(letter: DeadLetter) -> str:
    return letter.cause.partition(":")[0]


def text(value: object) -> str:
    """What is text that UTF-8 can write."""
    try:
        return value if isinstance(value, str) and value.encode() is not None else ""
    except UnicodeEncodeError:
        return ""


@fuzzed(frames=st.lists(FRAMES, max_size=4))
def test_every_way_in_judges_alike_and_keeps_the_bytes(frames: list[bytes]) -> None:
    events, letters = parse_frames(frames, 5.0)
    alone = [parse_frame(frame, 5.0) for frame in frames]
    assert events == [one for one in alone if isinstance(one, Event)]
    assert letters == [one for one in alone if isinstance(one, DeadLetter)]
    for frame, one in zip(frames, alone, strict=True):
        assert one.raw == frame
        in_a_sink = as_chunk(frame, "sink", 5.0)
        if isinstance(one, Event):
            assert isinstance(in_a_sink, Chunk)
            assert list(in_a_sink.events) == [one]
        else:
            assert isinstance(in_a_sink, DeadLetter)
            assert in_a_sink.cause == one.cause


def refuse(constant: str) -> None:
    raise ValueError(constant)


@fuzzed(frame=FRAMES)
def test_the_judgement_is_the_standard_library_s(frame: bytes) -> None:
    judged = parse_frame(frame, 5.0)
    try:
        value = json.loads(frame.decode(), parse_constant=refuse)
    except UnicodeDecodeError:
        assert isinstance(judged, DeadLetter)
        assert word(judged) == "not_utf8"
        return
    except (ValueError, RecursionError):
        # msgspec does not look inside what it skips, which may be JSON that is no JSON
        assert isinstance(judged, Event) or word(judged) in ("not_json", "no_id")
        return
    if not isinstance(value, dict) or not text(value.get("id")):
        assert isinstance(judged, DeadLetter)
        assert word(judged) == "no_id"
        return
    assert judged == Event(text(value["id"]), text(value.get("type")), text(value.get("createdAt")), frame)
