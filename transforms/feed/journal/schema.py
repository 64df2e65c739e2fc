"""The journal's tables, and the checksum that every row of them carries.

SQLite checks the structure of its pages and not their content, so each row answers for itself: a checksum
over all its columns, and where a big body follows (`chunks`, `ids`, `strays`, `received_ids`) one in front of
the body too, bound to the row's key, so that the rest of the row can be checked without reading the body.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec
from xxhash import xxh3_64_intdigest

VERSION = 3
# Columns of schema 1 come first and in its order: a row that schema 1 wrote is read by these statements, too.
SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value, checksum INTEGER) WITHOUT ROWID;
CREATE TABLE chunks (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, taken_at REAL NOT NULL, size INTEGER NOT NULL,
    checksum INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE ids (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, packed BLOB NOT NULL);
CREATE TABLE cursors (
    name TEXT PRIMARY KEY, born INTEGER NOT NULL, position INTEGER NOT NULL,
    delivered INTEGER NOT NULL DEFAULT 0, dead_lettered INTEGER NOT NULL DEFAULT 0,
    lost INTEGER NOT NULL DEFAULT 0, sealed INTEGER NOT NULL DEFAULT 0, seals INTEGER NOT NULL DEFAULT 0,
    doubt BLOB NOT NULL DEFAULT x'', checksum INTEGER) WITHOUT ROWID;
CREATE TABLE seals (
    destination TEXT NOT NULL, number INTEGER NOT NULL, batch TEXT NOT NULL, partition TEXT NOT NULL,
    offsets BLOB NOT NULL, settled BLOB NOT NULL DEFAULT x'', memo BLOB, attempts INTEGER NOT NULL DEFAULT 0,
    checksum INTEGER, PRIMARY KEY (destination, number)) WITHOUT ROWID;
CREATE TABLE gaps (
    number INTEGER PRIMARY KEY, since REAL NOT NULL, until REAL, reason TEXT NOT NULL, checksum INTEGER);
CREATE TABLE strays (number INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
"""
# What schema 3 added: receipts, and the ids of events that are not kept any more.
RECEIPTS = """
CREATE TABLE received (
    first INTEGER PRIMARY KEY, count INTEGER NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    low INTEGER NOT NULL, high INTEGER NOT NULL, lived REAL NOT NULL, size INTEGER NOT NULL,
    odd BLOB NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE received_ids (first INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE receipts (
    destination TEXT NOT NULL, level INTEGER NOT NULL, first INTEGER NOT NULL, ends INTEGER NOT NULL,
    at REAL NOT NULL, kind INTEGER NOT NULL, attempts INTEGER NOT NULL, said TEXT NOT NULL,
    offsets BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (destination, level, first)) WITHOUT ROWID;
CREATE TABLE troubles (
    destination TEXT PRIMARY KEY, at REAL NOT NULL, cause TEXT NOT NULL, checksum INTEGER NOT NULL)
    WITHOUT ROWID;
"""
# What makes schema 1 schema 2; rows of `chunks`, `ids` and `strays` stay as they are until they go.
FROM_VERSION_1 = """
ALTER TABLE meta ADD COLUMN checksum INTEGER;
ALTER TABLE cursors ADD COLUMN sealed INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN seals INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN doubt BLOB NOT NULL DEFAULT x'';
ALTER TABLE cursors ADD COLUMN checksum INTEGER;
ALTER TABLE seals ADD COLUMN checksum INTEGER;
ALTER TABLE gaps ADD COLUMN checksum INTEGER;
"""
COLUMNS: Mapping[str, str] = {
    "meta": "key, value, checksum",
    "cursors": "name, born, position, delivered, dead_lettered, lost, sealed, seals, doubt, checksum",
    "seals": "destination, number, batch, partition, offsets, settled, memo, attempts, checksum",
    "gaps": "number, since, until, reason, checksum",
    "strays": "number, body",
    "ids": "first, count, packed",
    "chunks": "first, count, taken_at, size, checksum, body",
    "received": "first, count, since, until, low, high, lived, size, odd, checksum",
    "received_ids": "first, body",
    "receipts": "destination, level, first, ends, at, kind, attempts, said, offsets, checksum",
    "troubles": "destination, at, cause, checksum",
}
MOST = 2**56  # no offset is beyond this; bigger numbers are damage

# Notes (rows of `meta`) that every journal has from its first moment on.
NEW_NOTES: Mapping[str, object] = {
    "version": VERSION,  # as in the file's header, for whoever looks
    "end": 0,  # the next offset
    "trimmed": 0,  # no event below this offset is kept
    "ids": 0,  # ids of events below this offset are forgotten
    "heard": 0.0,  # when the feed was last heard (epoch); 0: never
    "letters": 0,  # numbers of the feed's dead letters: kept are those above this one
    "letters_end": 0,  # and up to this one
    "destinations": "[]",  # their names, as JSON
    "receipts": 0,  # ids of events below this offset are not kept any more; from it on they are in blocks
    "received": 0,  # up to this one; from there on in the chunks
    "receipts_since": 0.0,  # when the youngest of those was received whose id is not kept (epoch); 0: none
    "lived": 0.0,  # seconds for which journals were open here: what the age of receipts is counted in
}

_encode = msgspec.msgpack.Encoder().encode
# What a body begins with since schema 2: MessagePack never writes this byte, no packed frame begins with it.
_MARK = 0xC1
_PREFIX = struct.Struct("<BQ")


class BadChecksum(Exception):
    """A row's checksum does not fit its content."""


def sign(table: str, *values: object) -> int:
    """The checksum of a row, from its columns in their order. 63 bits: SQLite's integers have a sign."""
    return xxh3_64_intdigest(_encode((table, *values))) >> 1


def sign_body(body: bytes, key: int) -> bytes:
    """`body` with its checksum in front, bound to the row's key."""
    return _PREFIX.pack(_MARK, xxh3_64_intdigest(body, key)) + body


def has_signature(stored: bytes) -> bool:
    """Whether this body was written by schema 2 or later."""
    return len(stored) >= _PREFIX.size and stored[0] == _MARK


def signed_body(stored: bytes, key: int) -> memoryview:
    """What `sign_body` was given. Raises BadChecksum."""
    body = memoryview(stored)[_PREFIX.size :]
    if not has_signature(stored) or _PREFIX.unpack_from(stored)[1] != xxh3_64_intdigest(body, key):
        raise BadChecksum(f"the body under key {key} was altered")
    return body


def old_checksum(body: bytes) -> int:
    """What schema 1 kept of a chunk: of its body alone."""
    return xxh3_64_intdigest(body) >> 1
