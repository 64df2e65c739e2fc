"""Frames become events or dead letters, and never lose a byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.sse import FrameReader
from transforms.parse import Oversized, parse_frame, parse_frames

CAPTURE = (Path(__file__).parent / "feed" / "data" / "stream.sse").read_bytes()


def test_every_captured_event_is_parsed_and_its_bytes_are_kept() -> None:
    frames = FrameReader().feed(CAPTURE)
    events, strays = parse_frames(frames, now=1.0)
    assert not strays
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
    events, strays = parse_frames([b'{"id":"a"}', b"bad", '{"id":"\u00e9"}'.encode(), b'{"id":"c"}'], 1.0)
    assert [event.id for event in events] == ["a", "\u00e9", "c"]
    assert [letter.raw for letter in strays] == [b"bad"]
