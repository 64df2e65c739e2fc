"""Where archived events go: Hive partitions by hour, and object keys that repeat with their content.

Shared by every destination that archives NDJSON (files, S3, Cloud Storage), so that a table over one reads
the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import zstandard
from isal import isal_zlib

from transforms import readers
from transforms.batch import BatchPolicy
from transforms.event import Batch, Event
from transforms.write.contract import Destination
from transforms.write.created_at import date_and_hour
from transforms.write.over_http.connection import GZIP_LEVEL, GZIP_WINDOW

# The peer's and the archive's sizes: a query engine likes few large objects, and five minutes is what people
# wait for an archive. One request takes 5 GB; 64 MB are what one batch may hold in memory.
POLICY = BatchPolicy(max_events=10_000, max_bytes=64_000_000, max_age=300.0)
MOST_BYTES = 5_000_000_000

# Hive's own name for "no value": Athena, Spark and Glue read it as NULL. Any other word would turn the
# type of `dt` from a date, and of `hour` from a number, into text for everybody.
NO_HOUR = "dt=__HIVE_DEFAULT_PARTITION__/hour=__HIVE_DEFAULT_PARTITION__"
PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
NOT_PLAIN = re.compile(r"[^A-Za-z0-9_-]", re.ASCII)
KEY = re.compile(
    r"dt=(\d{4}-\d\d-\d\d|__HIVE_DEFAULT_PARTITION__)/hour=(\d\d|__HIVE_DEFAULT_PARTITION__)/"
    r"[A-Za-z0-9_-]{1,100}\.ndjson(\.[a-z]{2,4})?",
    re.ASCII,
)
FLAT_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9a-f]{32}\.ndjson(\.[a-z]{2,4})?", re.ASCII)


def hour_partition(event: Event) -> str:
    """The hour of `created_at` in UTC, "dt=2026-03-01/hour=12"; NO_HOUR when it has none."""
    found = date_and_hour(event.created_at)
    return NO_HOUR if found is None else f"dt={found[0]}/hour={found[1]}"


def plain_name(event_id: str) -> str:
    """`event_id` as a part of a path: itself when it is plain, else with "_" for all that is not (an id
    is anyone's text, and must not name another directory)."""
    if PLAIN_NAME.fullmatch(event_id):
        return event_id
    return NOT_PLAIN.sub("_", event_id)[:64] or "_"


def object_key(batch: Batch, suffix: str) -> str:
    """The relative key of a batch, "dt=…/hour=…/<first event>-<batch id><suffix>".

    The first event's ULID makes keys sort by time; the batch's id makes a retried batch the same object.
    """
    return f"{batch.partition or NO_HOUR}/{plain_name(batch.events[0].id)}-{batch.id}{suffix}"


def flat_key(batch: Batch, suffix: str) -> str:
    """The key of a batch without directories, "<first created_at>-<batch id><suffix>": as the Node package
    names its objects, and yet a name for these events alone."""
    first = batch.events[0]
    time = first.created_at.replace(":", "-").replace(".", "-")
    return f"{plain_name(time if date_and_hour(first.created_at) else first.id)}-{batch.id}{suffix}"


def key_of(batch: Batch, layout: Layout, prefix: str, compression: Compression) -> str:
    """The whole key of a batch in a bucket: that of its first attempt, also when settings have changed since;
    a new one is remembered with the batch."""
    if batch.memo is not None:
        key = batch.memo.decode(errors="replace")
        parts = key.split("/")
        if is_key("/".join(parts[-3:])) or is_flat_key(parts[-1]):
            return key
    named = flat_key if layout == "flat" else object_key
    key = named(batch, SUFFIXES[compression])
    if prefix.strip("/"):
        key = f"{prefix.strip('/')}/{key}"
    batch.remember(key.encode())
    return key


# What `check` puts into a bucket, once. Readers of Hive layouts look past names that begin with _, and ours
# past those that do not end with .ndjson or its packed forms.
CHECK_KEY = "_check"
CHECK = Batch([Event("", "", "", b"grantex-beam check has put this here; it may be deleted")])


def check_key(prefix: str) -> str:
    """Where it lies."""
    return f"{prefix.strip('/')}/{CHECK_KEY}".lstrip("/")


class InABucket(Destination):
    """What archives in a bucket have in common; its dataclass has the fields."""

    title: ClassVar[str]
    scheme: ClassVar[str]  # of its addresses: "s3://"
    bucket: str
    prefix: str
    layout: Layout
    endpoint: str | None

    def partition(self, event: Event) -> str:
        """The hour of `created_at` in the Hive layout: an object never mixes hours."""
        return hour_partition(event) if self.layout == "hive" else ""

    def target(self) -> str:
        """The bucket and prefix, and the endpoint when it is not the service's own."""
        place = "/".join(part for part in (self.bucket, self.prefix.strip("/")) if part)
        return f"{self.scheme}{place}{self._elsewhere}"

    def address(self, key: str) -> str:
        """Of the object with this key."""
        return f"{self.scheme}{self.bucket}/{key}"

    def exactly_once(self) -> bool:
        return True

    def by_content(self) -> bool:
        return True

    @property
    def where(self) -> str:
        """Who answers, for a person."""
        return f"{self.title} bucket {self.bucket}{self._elsewhere}"

    @property
    def _elsewhere(self) -> str:
        return f" at {self.endpoint}" if self.endpoint else ""


def key_prefix(text: str) -> str:
    """What keys in a bucket begin with, as a person gives it: without slashes around it; a "/" alone is
    none."""
    found = readers.line(text).strip("/")
    # Keys have 1024 bytes, and hour, time and hash take up to a hundred.
    if "//" in found or len(found.encode()) > 900:
        raise ValueError("must be at most 900 bytes without two slashes in a row")
    return found


def is_key(text: str) -> bool:
    """Whether `text` is a key of this layout, so that a damaged memo cannot name another file."""
    return KEY.fullmatch(text) is not None


def is_flat_key(text: str) -> bool:
    """As `is_key`, for `flat_key`."""
    return FLAT_KEY.fullmatch(text) is not None


Layout = Literal["hive", "flat"]
Compression = Literal["gzip", "zstd", "none"]
# What a packed file's name ends with; readers (Athena, Spark, DuckDB) unpack by it.
SUFFIXES: dict[Compression, str] = {"gzip": ".ndjson.gz", "zstd": ".ndjson.zst", "none": ".ndjson"}
# Level 3 is zstd's own default: 2 ms for 1 MB of events at ratio 4.6, where gzip takes 1.6 ms at 3.7.
ZSTD_LEVEL = 3
# Events that are joined and compressed at a time: bounds the second copy of a batch in memory.
LINES_AT_ONCE = 500


def compression_of(key: str) -> Compression:
    """How the object with this key is packed, by the end of its name."""
    return "gzip" if key.endswith(".gz") else "zstd" if key.endswith(".zst") else "none"


def blocks(events: Sequence[Event], compression: Compression) -> Iterator[bytes]:
    """The stored bytes of these events, in pieces; the same events always make the same bytes."""
    packer = new_packer(compression)
    for start in range(0, len(events), LINES_AT_ONCE):
        block = lines(events[start : start + LINES_AT_ONCE])
        packed = packer.compress(block) if packer else block
        if packed:
            yield packed
    if packer:
        yield packer.flush()


def new_packer(compression: Compression) -> Any:
    """An object with `compress` and `flush`; None for no compression."""
    if compression == "gzip":
        return isal_zlib.compressobj(GZIP_LEVEL, isal_zlib.DEFLATED, GZIP_WINDOW)
    if compression == "zstd":
        return zstandard.ZstdCompressor(level=ZSTD_LEVEL, write_checksum=True).compressobj()
    return None


def lines(events: Sequence[Event]) -> bytes:
    """One line an event. A line end inside raw JSON can only be white space between its tokens (inside a
    string it would have to be escaped), so a space says the same."""
    joined = b"\n".join([event.raw for event in events]) + b"\n"
    if joined.count(b"\n") == len(events) and b"\r" not in joined:
        return joined
    return b"".join([event.raw.replace(b"\n", b" ").replace(b"\r", b" ") + b"\n" for event in events])
