"""Pseudonyms: values of named fields replaced by a keyed hash, in place; every other byte stays as it was.

The pseudonym of a value is HMAC-SHA256 of its text under the key, as 64 hexadecimal digits: what
`printf %s VALUE | openssl dgst -sha256 -hmac KEY` prints. The same value has the same one wherever it stands,
at every destination.

What is kept of an event (in the journal, in a cluster's state, as a dead letter) is the original: values are
replaced on their way into a request, so that a replay replaces them once and not twice.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.secret import Secret, SecretError, read_by
from transforms.way_out import USUAL
from transforms.write.asked import LEAST_KEY
from transforms.write.contract import Destination, Outcome, Writer

# A string, a sign, or a number or word; an event was read as JSON before, so that nothing else is in it.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\],:]|[^\s{}\[\],:"]+', re.DOTALL)
_WORDS = frozenset({b"true", b"false", b"null"})
KEY = "the key of its pseudonyms"
SAME_LENGTH = "0" * 64


class Fields:
    """Fields of events by their paths, "data.user.email". A path leads through arrays as if they were not
    there; of an object or an array at its end, all values are meant."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._root = _Names()
        for path in paths:
            names = self._root
            *before, last = path.encode().split(b".")
            for name in before:
                names = names.below.setdefault(name, _Names())
            names.below.setdefault(last, _Names()).ends = True

    def replace(self, raw: bytes, pseudonym: Callable[[bytes], str]) -> bytes:
        """`raw`, an event's JSON, with `pseudonym` of the text of each string and number in these fields;
        true, false and null stay. Raises ValueError for what is no JSON."""
        parts: list[bytes] = []
        done = 0
        # Of what is open: the names below it (None: of no interest), and whether its next token is a key.
        stack: list[tuple[_Names | None, bool]] = []
        names: _Names | None = self._root  # of the value that comes next
        is_key = False
        for token in _TOKEN.finditer(raw):
            text = token.group()
            if text in b"{[":
                stack.append((names, text == b"{"))
                is_key = text == b"{"
            elif text in b"}]":
                if not stack:
                    break
                stack.pop()
                is_key = False
            elif text == b",":
                names, is_key = stack[-1] if stack else (None, False)
            elif text == b":":
                is_key = False
            elif is_key:
                names = None if stack[-1][0] is None else stack[-1][0].named(text)
            elif names is not None and names.ends and text not in _WORDS:
                parts += raw[done : token.start()], b'"', pseudonym(_text_of(text)).encode(), b'"'
                done = token.end()
        else:
            if not stack:
                return b"".join((*parts, raw[done:])) if parts else raw
        raise ValueError(
            "an event's brackets do not close: it is not sent, as its fields cannot be told apart"
        )


class _Names:
    """What is below a place in an event. ends: all of it is meant."""

    __slots__ = ("below", "ends")

    def __init__(self) -> None:
        self.below: dict[bytes, _Names] = {}
        self.ends = False

    def named(self, key: bytes) -> _Names | None:
        """What is below the key, a string of JSON."""
        return self if self.ends else self.below.get(_text_of(key))


def _text_of(token: bytes) -> bytes:
    """The text of a string, in UTF-8, or of a number."""
    if token[:1] != b'"':
        return token
    if b"\\" not in token:
        return token[1:-1]
    try:
        return str(json.loads(token, strict=False)).encode(errors="surrogatepass")
    except ValueError:  # escapes that JSON does not have, which some readers let pass
        return token[1:-1]


def pseudonym(key: bytes, text: bytes) -> str:
    """The pseudonym of a text."""
    return hmac.digest(key, text, "sha256").hex()


def open_writer(destination: Destination) -> Writer:
    """A new connection of the destination, through which pseudonyms go where it asks for them. Raises
    SecretError when their key cannot be read, and whatever `open` does."""
    fields = destination.asked.pseudonymize
    if not fields:
        return destination.open()
    key = read_key(destination)
    return PseudonymWriter(destination.open(), Fields(fields), key)


_keys: dict[Secret, bytes] = {}  # of this process, which has one for as long as it lives


def read_key(destination: Destination) -> bytes:
    """The key of its pseudonyms. Raises SecretError."""
    secret = destination.asked.pseudonym_key
    if secret is None:
        raise SecretError("there is no key for pseudonyms: give --pseudonym_key")
    if secret in _keys:
        return _keys[secret]
    key = read_by(getattr(destination, "way_out", USUAL), secret)
    if len(key) < LEAST_KEY:
        raise SecretError(f"the key for pseudonyms has less than {LEAST_KEY} characters: give a longer one")
    return _keys.setdefault(secret, key.encode())


def key_found(destination: Destination) -> Iterator[Finding]:
    """For a preflight: whether the key of its pseudonyms can be read; nothing where it asks for none."""
    if destination.asked.pseudonymize:
        try:
            read_key(destination)
            yield Finding(KEY, True)
        except SecretError as error:
            yield Finding(KEY, False, f"{error}.")


class PseudonymWriter(Writer):
    """Hands batches to a writer with pseudonyms in them; the batch itself keeps its events as they are."""

    def __init__(self, writer: Writer, fields: Fields, key: bytes) -> None:
        self._writer, self._fields, self._key = writer, fields, key

    def write(self, batch: Batch) -> Outcome | None:
        sent = replace(batch, events=[self._replaced(event) for event in batch.events])
        try:
            return self._writer.write(sent)
        finally:
            batch.memo, batch.place = sent.memo, sent.place

    def preflight(self) -> Iterable[Finding]:
        return self._writer.preflight()

    def close(self) -> None:
        self._writer.close()

    def _replaced(self, event: Event) -> Event:
        raw = self._fields.replace(event.raw, lambda text: pseudonym(self._key, text))
        return event if raw is event.raw else Event(event.id, event.type, event.created_at, raw)


class Measures(NamedTuple):
    """How a destination's batches are filled. partition: None when it is the same for all. form: see
    `Destination.form`."""

    sizes: Callable[[Sequence[Event]], Iterable[int]]
    partition: Callable[[Event], str] | None
    form: Hashable


def measures(destination: Destination) -> Measures:
    """Those of `destination`. With pseudonyms they are asked of events with stand-ins that are as long, so
    that no batch is too large, and nothing of a hidden value is in a partition's name."""
    # Asking every event for a partition that is the same for all would double the cost of batching.
    one = type(destination).partition is Destination.partition
    sizes, partition = destination.sizes, None if one else destination.partition
    if not destination.asked.pseudonymize:
        return Measures(sizes, partition, destination.form())
    fields = Fields(destination.asked.pseudonymize)

    def stand_in(event: Event) -> Event:
        raw = fields.replace(event.raw, lambda _: SAME_LENGTH)
        return Event(event.id, event.type, event.created_at, raw)

    def sizes_of(events: Sequence[Event]) -> Iterable[int]:
        return sizes([stand_in(event) for event in events])

    if partition is None:
        return Measures(sizes_of, None, None)
    known = partition
    return Measures(sizes_of, lambda event: known(stand_in(event)), None)
