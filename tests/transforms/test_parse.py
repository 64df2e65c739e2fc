"""Frames become events or dead letters, lose no byte, and are judged alike whichever way they come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event
from transforms.feed.pubsub import ToChunks
from transforms.feed.sse import FrameReader
from transforms.parse import MAX_DEPTH, Oversized, as_chunk, parse_frame, parse_frames

CAPTURE = (Path(__file__).parent / "feed" / "data" / "stream.sse").read_bytes()


def test_every_captured_event_is_parsed_and_its_bytes_are_kept() -> None:
    frames = FrameReader().feed(CAPTURE)
    events, letters = parse_frames(frames, now=1.0)
    assert not letters
    assert [event.raw for event in events] == frames
    for event in events:
        value = json.loads(event.raw)
        assert (event.id, event.type, event.created_at) == (value["id"], value["type"], value["createdAt"])


@pytest.mark.parametrize(
    "raw",
    [
        b'{"id":"a"}',
        b'{"id":"a","type":3,"createdAt":null}',
        b'{"id":"a","type":{"x":[1]},"createdAt":[]}',
        b'{"id":"a","type":"\\ud800"}',
    ],
)
def test_missing_or_odd_type_and_created_at_are_empty(raw: bytes) -> None:
    assert parse_frame(raw, 1.0) == Event("a", "", "", raw)


@pytest.mark.parametrize(
    "raw",
    [
        b' { "id" : "a" , "more" : [1, {"id": "b"}] } ',
        b'{"id":"b","id":"a"}',
        b'{"\\u0069d":"a"}',
        b'{"id":"a","data":"\\ud83d"}',
        b'{"id":"a","data":1e999,"n":' + b"1" * 5000 + b"}",
        b'{"id":"a","type":1,"n":' + b"1" * 5000 + b"}",
        '{"id":"a","data":"h\u00e9 \u2028 \U0001f600"}'.encode(),
        b'{"id":"a","__proto__":{},"NaN":"NaN"}',
        b'{\n"id":"a"\n}',
    ],
)
def test_what_is_json_with_an_id_is_an_event(raw: bytes) -> None:
    event = parse_frame(raw, 1.0)
    assert isinstance(event, Event)
    assert (event.id, event.raw) == ("a", raw)
    assert parse_frames([raw], 1.0) == ([event], [])


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"hello", "not_json"),
        (b'{"id":"a"', "not_json"),
        (b'{"id":"a"} {"id":"b"}', "not_json"),
        (b'{"id":"a","x":NaN}', "not_json"),
        (b'{"id":"a","x":-Infinity}', "not_json"),
        (b'{"id":"a","x":"\x01"}', "not_json"),
        (b'\xef\xbb\xbf{"id":"a"}', "not_json"),
        (b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"id":"a","x":"\xff"}', "not_utf8"),
        (b'{"id":"a","x":"\xed\xa0\x80"}', "not_utf8"),
        (b"{}", "no_id"),
        (b'{"id":""}', "no_id"),
        (b'{"id":7}', "no_id"),
        (b'{"id":null,"type":"t"}', "no_id"),
        (b'{"id":"\\ud800"}', "no_id"),
        (b'["id","a"]', "no_id"),
        (b'"id"', "no_id"),
        (b"null", "no_id"),
    ],
)
def test_everything_else_is_a_dead_letter_with_its_bytes(raw: bytes, cause: str) -> None:
    letter = parse_frame(raw, 5.0)
    assert isinstance(letter, DeadLetter)
    assert letter.cause.startswith(f"{cause}: ")
    assert len(letter.cause) > len(cause) + 5
    assert (letter.stage, letter.destination, letter.raw, letter.at) == ("feed", "", raw, 5.0)
    assert parse_frames([raw], 5.0) == ([], [letter])


def test_a_frame_too_large_keeps_its_beginning() -> None:
    _, [letter] = parse_frames([Oversized(b"xyz", 30)], 1.0)
    assert letter.cause == "frame_too_large: 30 bytes, of which the first 3 are kept"
    assert letter.raw == b"xyz"


def test_order_is_kept_and_one_bad_frame_costs_no_other() -> None:
    events, letters = parse_frames([b'{"id":"a"}', b"bad", '{"id":"\u00e9"}'.encode(), b'{"id":"c"}'], 1.0)
    assert [event.id for event in events] == ["a", "\u00e9", "c"]
    assert [letter.raw for letter in letters] == [b"bad"]


Verdict = tuple[str, str, str] | str  # an event's id, type and createdAt, or a dead letter's cause word


def verdict(found: Any, raw: bytes) -> Verdict:
    """What one way in says; fails when a byte is lost."""
    if isinstance(found, Chunk):
        (found,) = found.events
    assert found.raw == raw
    if isinstance(found, Event):
        return found.id, found.type, found.created_at
    assert isinstance(found, DeadLetter)
    return found.cause.partition(":")[0]


def judged(raw: bytes) -> Verdict:
    """What every way in says of `raw`: the feed, its slow path, Pub/Sub, a sink given bytes or text."""
    events, letters = parse_frames([raw], 1.0)
    to_chunks = ToChunks()
    to_chunks.start_bundle()
    from_pubsub = [output.value for output in [*to_chunks.process(raw), *to_chunks.finish_bundle()]]
    text = raw.decode(errors="surrogatepass") if is_text(raw) else raw
    ways = [*events, *letters, *from_pubsub, *(as_chunk(each, "x", 1.0) for each in (raw, text))]
    found = {verdict(each, raw) for each in [*ways, parse_frame(raw, 1.0)]}
    assert len(ways) == 4
    assert len(found) == 1, found
    return found.pop()


def is_text(raw: bytes) -> bool:
    try:
        raw.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def of_the_standard_library(raw: bytes) -> tuple[str, str, str] | None:
    """Its opinion: the three fields of an event, None for what is none."""

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    def text(value: object) -> str:
        whole = isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)
        return str(value) if whole else ""

    try:
        value = json.loads(raw.decode(), parse_constant=refuse, parse_int=lambda number: None)
    except ValueError:
        return None
    if not isinstance(value, dict) or not text(value.get("id")):
        return None
    return text(value["id"]), text(value.get("type")), text(value.get("createdAt"))


NAMES = st.sampled_from(["id", "type", "createdAt", "data", "i\u0064", "\ud800", "\u00e9"])
TEXT = st.text(st.characters(), max_size=8) | st.sampled_from(["evt_1", "\ud83d", "\u0000", '"', "\\"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | TEXT, inner, max_size=4)
)
ENVELOPES = st.fixed_dictionaries(
    {"id": TEXT | VALUES}, optional={"type": VALUES, "createdAt": VALUES, "x": VALUES}
)


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """JSON in each spelling, and what a few wrong bytes make of it."""
    value, escaped = draw(ENVELOPES | VALUES), draw(st.booleans())
    text = json.dumps(value, ensure_ascii=escaped, indent=draw(st.sampled_from([None, 1])))
    raw = bytearray(text.encode(errors="surrogatepass"))
    for place, wrong in draw(
        st.lists(st.tuples(st.integers(0, len(raw)), st.binary(max_size=2)), max_size=2)
    ):
        raw[place : place + draw(st.integers(0, 2))] = wrong
    return bytes(raw)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(frames() | st.binary(max_size=20))
@example(b'{"id":"a","type":5}')
@example(b'{"id":"evt_1","type":null,"createdAt":"2026-11-26T03:00:00Z","data":{}}')
@example(b'{"id":"evt_2","type":"t","createdAt":1764126000,"data":{}}')
@example(b'{"id":"a","x":"\xff"}')
@example(b'{"id":"a","x":"\xed\xa0\x80"}')
@example(b'{"id":"a","type":"\\ud800"}')
@example(b'{"id":"\\ud800"}')
def test_every_way_in_judges_alike_and_as_the_standard_library_does(raw: bytes) -> None:
    found, expected = judged(raw), of_the_standard_library(raw)
    assert found == expected if expected is not None else isinstance(found, str)


def deep(levels: int, opened: bytes = b"[", closed: bytes = b"]") -> bytes:
    """An event of so many levels in all."""
    return b'{"id":"a","x":' + opened * (levels - 1) + b"1" + closed * (levels - 1) + b"}"


@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}"), (b' [\n"]",', b"]")])
@pytest.mark.parametrize("odd", [b"", b',"type":5'])
def test_how_deep_an_event_may_be_depends_on_nobody_s_stack(
    brackets: tuple[bytes, bytes], odd: bytes
) -> None:
    at_most = deep(MAX_DEPTH, *brackets)[:-1] + odd + b"}"
    deeper = deep(MAX_DEPTH + 1, *brackets)[:-1] + odd + b"}"
    assert judged(at_most) == ("a", "", "")
    assert judged(deeper) == judged(deep(100_000, *brackets)) == "not_json"

    def from_below(frames: int) -> Verdict:
        return judged(at_most) if not frames else from_below(frames - 1)

    assert from_below(250) == ("a", "", "")


def test_brackets_in_text_and_side_by_side_are_no_levels() -> None:
    flat = b'{"id":"a","x":"' + b"[{" * 600 + b'\\"[","y":[' + b"[]," * 600 + b"{}]}"
    assert judged(flat) == ("a", "", "")


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=3), TEXT)
def test_a_dict_is_judged_as_what_it_says_in_json(rest: dict[str, Any], event_id: str) -> None:
    element = {**rest, "id": event_id}
    found = as_chunk(element, "x", 1.0)
    raw = found.raw if isinstance(found, DeadLetter) else found.events[0].raw
    assert verdict(found, raw) == judged(raw)
    whole = not any("\ud800" <= sign <= "\udfff" for sign in event_id)
    assert isinstance(found, Chunk) == bool(event_id and whole)


def test_a_dict_too_deep_for_json_is_a_dead_letter() -> None:
    element: dict[str, Any] = {"id": "a"}
    for _ in range(5_000):
        element = {"id": "a", "x": element}
    letter = as_chunk(element, "x", 1.0)
    assert isinstance(letter, DeadLetter)
    assert letter.cause == "not_json: nested too deeply to be written"


def test_a_sink_s_dead_letter_names_the_sink() -> None:
    letter = as_chunk(b"no", "splunk", 5.0)
    assert isinstance(letter, DeadLetter)
    assert (letter.stage, letter.destination, letter.at) == ("write", "splunk", 5.0)
