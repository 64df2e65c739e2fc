"""What is an event, for every way in: its exact bytes become an Event, or a dead letter that says why not."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
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
TOO_LARGE = "frame_too_large"  # the cause that an Oversized one has as a dead letter


class _Envelope(msgspec.Struct, gc=False):
    """The three fields that the pipeline reads; all others are skipped unread."""

    id: str
    type: str = ""
    createdAt: str = ""  # the feed's own name


_decode = msgspec.json.Decoder(_Envelope).decode
# Parsers recurse, and how far they get depends on who calls them: without a bound of our own the same bytes
# would be an event in one place and none in another. Python's reader takes some 990 levels on an empty stack.
MAX_DEPTH = 910
DEEP = 500  # from here on, such a stack is made
_SHALLOW = 2 * DEEP  # bytes that cannot open and close more levels


def parse_frames(frames: Iterable[Frame], now: float) -> tuple[list[Event], list[DeadLetter]]:
    """Events and dead letters of `frames`, each in the order of arrival; `now` in epoch seconds."""
    events: list[Event] = []
    letters: list[DeadLetter] = []
    add, decode, shallow = events.append, _decode, _SHALLOW
    for frame in frames:
        # msgspec skips strings unread: bytes that are no UTF-8 would pass it.
        if isinstance(frame, bytes) and frame.isascii() and (len(frame) <= shallow or not _is_deep(frame)):
            try:
                head = decode(frame)
                if head.id:
                    add(Event(head.id, head.type, head.createdAt, frame))
                    continue
            except (msgspec.MsgspecError, RecursionError):
                pass
        parsed = parse_frame(frame, now)
        if isinstance(parsed, Event):
            add(parsed)
        else:
            letters.append(parsed)
    return events, letters


def parse_frame(
    frame: Frame, now: float, *, stage: str = "feed", destination: str = ""
) -> Event | DeadLetter:
    """One frame as an Event; otherwise a dead letter of that stage and destination, with one of the causes
    `frame_too_large`, `not_utf8`, `not_json`, `no_id`, followed by a detail for a person.

    An event is a JSON object in UTF-8, at most MAX_DEPTH levels deep, whose `id` is a non-empty string.
    `type` and `createdAt` are "" when they are missing or no strings: none is ever refused for them.
    """
    if isinstance(frame, Oversized):
        detail = f"{frame.size} bytes, of which the first {len(frame.head)} are kept"
        return DeadLetter(stage, destination, f"{TOO_LARGE}: {detail}", frame.head, at=now)
    try:
        return _event(frame)
    except _NoEvent as why:
        return DeadLetter(stage, destination, str(why), frame, at=now)


class _NoEvent(Exception):
    """Its text is a dead letter's cause."""


def _event(raw: bytes) -> Event:
    """Raises _NoEvent."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _NoEvent(f"not_utf8: byte {error.start} begins no UTF-8 character") from None
    try:
        value = _read(raw, text)
    except RecursionError:
        raise _NoEvent(f"not_json: nested too deeply to be read, more than {MAX_DEPTH} levels") from None
    except ValueError as error:
        raise _NoEvent(f"not_json: {error}") from None
    if not isinstance(value, dict):
        raise _NoEvent("no_id: the JSON is not an object")
    event_id = _string(value.get("id"))
    if not event_id:
        raise _NoEvent("no_id: `id` is missing or no non-empty string of valid Unicode")
    return Event(event_id, _string(value.get("type")), _string(value.get("createdAt")), raw)


def _read(raw: bytes, text: str) -> Any:
    """What the JSON says, as far as it matters here. Raises ValueError and RecursionError."""
    if len(raw) <= _SHALLOW or not _is_deep(raw):
        return _parsed(raw, text)
    if _is_deep(raw, MAX_DEPTH):
        raise RecursionError
    return _on_an_empty_stack(_parsed, raw, text)


def _on_an_empty_stack(call: Callable[..., Any], *given: Any) -> Any:
    """What `call` gives, or raises, where no caller has used up some of the recursion that Python allows."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(call, *given).result()


def _parsed(raw: bytes, text: str) -> Any:
    try:
        head = _decode(raw)
    except msgspec.MsgspecError:
        # The standard library also reads what msgspec refuses (odd types of the three fields, lone
        # surrogates, huge numbers); numbers are not needed and may be too long for Python's int().
        return json.loads(text, parse_constant=_refuse, parse_int=_skip, parse_float=_skip)
    return {"id": head.id, "type": head.type, "createdAt": head.createdAt}


def _written(element: Mapping[str, Any]) -> bytes:
    """The element as JSON. Raises RecursionError, and what else msgspec raises."""
    try:
        return _encode(element)
    except RecursionError:
        return bytes(_on_an_empty_stack(_encode, element))


_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_BRACKET = re.compile(rb"[\[{]|[\]}]")


def _is_deep(raw: bytes, levels: int = DEEP) -> bool:
    """Whether it has more than so many levels. Only what has so many brackets is looked at closely."""
    if raw.count(b"[") + raw.count(b"{") <= levels:
        return False
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        if depth > levels:
            return True
    return False


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


def as_chunk(element: Any, destination: str, now: float) -> Chunk | DeadLetter:
    """The chunk that `element` stands for, or a dead letter when it is no event (see parse_frame).

    element: Chunk, Event, bytes or str (one event's JSON, kept as it is) or dict (encoded here).
    Raises TypeError for anything else, and for a dict with what JSON cannot say: a mistake in the pipeline.
    """
    if isinstance(element, Chunk):
        return element
    if isinstance(element, Event):
        return Chunk((element,), taken_at=now)
    if isinstance(element, str):
        raw = element.encode(errors="surrogatepass")  # half a character stays one, and is no UTF-8
    elif isinstance(element, bytes):
        raw = element
    elif isinstance(element, Mapping):
        try:
            raw = _written(element)
        except RecursionError:
            return DeadLetter("write", destination, "not_json: nested too deeply to be written", b"", at=now)
    else:
        raise TypeError(
            f"{destination} takes Chunk, Event, bytes, str or dict elements, not {type(element).__name__}"
        )
    event = parse_frame(raw, now, stage="write", destination=destination)
    return Chunk((event,), taken_at=now) if isinstance(event, Event) else event


def _encode(element: Mapping[Any, Any]) -> bytes:
    """Raises RecursionError, and TypeError for what JSON cannot say."""
    try:
        return msgspec.json.encode(element)
    except UnicodeEncodeError:  # half a character, which JSON can escape; NaN is null as it is above
        return json.dumps(json.loads(json.dumps(element), parse_constant=_skip)).encode()
