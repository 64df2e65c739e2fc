"""What a sink takes as input: chunks, or single events in whatever form a pipeline has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event


class _Envelope(msgspec.Struct):
    id: str
    type: str = ""
    createdAt: str = ""  # the feed's own name


_decode = msgspec.json.Decoder(_Envelope).decode


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
        envelope = _decode(raw)
    except msgspec.ValidationError as error:
        return _stray(raw, destination, f"no_id: {error}", now)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return _stray(raw, destination, f"not_json: {error}", now)
    if not envelope.id:
        return _stray(raw, destination, "no_id: the id is empty", now)
    return Chunk((Event(envelope.id, envelope.type, envelope.createdAt, raw),), taken_at=now)


def _stray(raw: bytes, destination: str, cause: str, now: float) -> DeadLetter:
    return DeadLetter("write", destination, cause, raw, at=now)
