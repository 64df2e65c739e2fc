"""A frame becomes an Event, or a dead letter that says why it is none; its bytes are kept exact."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeAlias

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event


@dataclass(frozen=True, slots=True)
class Oversized:
    """A frame above the limit: its first bytes, and how many bytes it had in all."""

    head: bytes
    size: int


Frame: TypeAlias = bytes | Oversized


class _Envelope(msgspec.Struct, gc=False):
    """The three fields that the pipeline reads; all others are skipped unread."""

    id: str
    type: str = ""
    createdAt: str = ""


_decode = msgspec.json.Decoder(_Envelope).decode


def parse_frames(frames: Iterable[Frame], now: float) -> tuple[list[Event], list[DeadLetter]]:
    """Events and dead letters of `frames`, each in the order of arrival; `now` in epoch seconds."""
    events: list[Event] = []
    strays: list[DeadLetter] = []
    take = events.append
    for frame in frames:
        # msgspec skips strings unread: bytes that are no UTF-8 would pass it.
        if isinstance(frame, bytes) and frame.isascii():
            try:
                head = _decode(frame)
                if head.id:
                    take(Event(head.id, head.type, head.createdAt, frame))
                    continue
            except (msgspec.MsgspecError, RecursionError):
                pass
        parsed = parse_frame(frame, now)
        if isinstance(parsed, Event):
            take(parsed)
        else:
            strays.append(parsed)
    return events, strays


def parse_frame(frame: Frame, now: float) -> Event | DeadLetter:
    """One frame as an Event; otherwise a dead letter of stage "feed" with one of the causes
    `frame_too_large`, `not_utf8`, `not_json`, `no_id`, followed by a detail for a person.

    `type` and `createdAt` are "" when they are missing or no strings: an event is never refused for them.
    """
    if isinstance(frame, Oversized):
        detail = f"{frame.size} bytes, of which the first {len(frame.head)} are kept"
        return _stray("frame_too_large", detail, frame.head, now)
    try:
        text = frame.decode()
    except UnicodeDecodeError as error:
        return _stray("not_utf8", f"byte {error.start} begins no UTF-8 character", frame, now)
    try:
        value = _read(frame, text)
    except RecursionError:
        return _stray("not_json", "nested too deeply to be read", frame, now)
    except ValueError as error:
        return _stray("not_json", str(error), frame, now)
    if not isinstance(value, dict):
        return _stray("no_id", "the JSON is not an object", frame, now)
    event_id = _string(value.get("id"))
    if not event_id:
        return _stray("no_id", "`id` is missing or no non-empty string of valid Unicode", frame, now)
    return Event(event_id, _string(value.get("type")), _string(value.get("createdAt")), frame)


def _read(frame: bytes, text: str) -> Any:
    """What the JSON says, as far as it matters here. Raises ValueError and RecursionError."""
    try:
        head = _decode(frame)
    except msgspec.MsgspecError:
        # The standard library also reads what msgspec refuses (odd types of the three fields, lone
        # surrogates, huge numbers); numbers are not needed and may be too long for Python's int().
        return json.loads(text, parse_constant=_refuse, parse_int=_skip, parse_float=_skip)
    return {"id": head.id, "type": head.type, "createdAt": head.createdAt}


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _skip(number: str) -> None:
    return None


def _string(value: object) -> str:
    """`value` when it is text that UTF-8 can write (JSON can escape half a character), else ""."""
    if not isinstance(value, str):
        return ""
    try:
        value.encode()
    except UnicodeEncodeError:
        return ""
    return value


def _stray(cause: str, detail: str, raw: bytes, now: float) -> DeadLetter:
    return DeadLetter(stage="feed", destination="", cause=f"{cause}: {detail}", raw=raw, at=now)


class _Element(msgspec.Struct):
    id: str
    type: str = ""
    createdAt: str = ""  # the feed's own name


_decode_element = msgspec.json.Decoder(_Element).decode


def as_chunk(element: Any, destination: str, now: float) -> Chunk | DeadLetter:
    """The chunk that `element` stands for, or a dead letter when it is no event (`not_json`, `no_id`).

    element: Chunk, Event, bytes or str (one event's JSON, kept as it is) or dict (encoded here).
    Raises TypeError for anything else: a mistake in the pipeline.
    """
    if isinstance(element, Chunk):
        return element
    if isinstance(element, Event):
        return Chunk((element,), taken_at=now)
    if isinstance(element, str):
        raw = element.encode()
    elif isinstance(element, bytes):
        raw = element
    elif isinstance(element, Mapping):
        raw = msgspec.json.encode(element)
    else:
        raise TypeError(
            f"{destination} takes Chunk, Event, bytes, str or dict elements, not {type(element).__name__}"
        )
    try:
        envelope = _decode_element(raw)
    except msgspec.ValidationError as error:
        return _no_event(raw, destination, f"no_id: {error}", now)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _no_event(raw, destination, f"not_json: {error}", now)
    if not envelope.id:
        return _no_event(raw, destination, "no_id: the id is empty", now)
    return Chunk((Event(envelope.id, envelope.type, envelope.createdAt, raw),), taken_at=now)


def _no_event(raw: bytes, destination: str, cause: str, now: float) -> DeadLetter:
    return DeadLetter("write", destination, cause, raw, at=now)
