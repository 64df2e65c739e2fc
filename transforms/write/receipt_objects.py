"""Receipts as objects under a gs:// or s3:// prefix, or in a directory: what a cluster has for a journal.

Packed NDJSON by day (UTC) of delivery, a line for each batch that a destination took, and for each dead
letter: `{"destination","state","at","attempts","place","cause","ids"}`.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, ClassVar

import apache_beam as beam
import msgspec
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from transforms.batch import BatchPolicy
from transforms.dead_letter import DeadLetter
from transforms.event import Event, Receipt
from transforms.write.archive import Compression
from transforms.write.keyed.attempts import DrainTime
from transforms.write.line_objects import BINARY, LineObjects, objects_under
from transforms.write.write_to import WriteTo

log = logging.getLogger("grantex.write")
# Some thousand batches: objects every few minutes, of a few megabytes.
POLICY = BatchPolicy(max_events=10_000, max_bytes=32_000_000, max_age=120.0)


class ReceiptLine(msgspec.Struct, frozen=True):
    """What became of some events at a destination. state: "delivered" or "dead_letter"; at: epoch seconds."""

    destination: str
    state: str
    at: float
    attempts: int
    ids: list[str]
    place: str = ""
    cause: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(ReceiptLine).decode


@dataclass(frozen=True)
class ReceiptObjects(LineObjects):
    """Where they go, by the day of delivery. Its events are the lines."""

    policy: BatchPolicy = POLICY

    name: ClassVar[str] = "receipts"
    what: ClassVar[str] = "receipts"
    flag: ClassVar[str] = "--receipts"
    compression: ClassVar[Compression] = "gzip"


class WriteReceipts(beam.PTransform):  # type: ignore[type-arg]
    """Takes a sink's result (`delivered`, `dead_letters`) and keeps what it says, gathered for two minutes.

    What cannot be written by the end of the input is given up, with a line in the log: the events are
    delivered whatever becomes of their receipts.
    """

    def __init__(
        self,
        prefix: str,
        timers: bool | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self._prefix, self._timers, self._drain = prefix, timers, drain

    def expand(self, written: Any) -> Any:
        delivered = written[0] | "OfDelivered" >> beam.Map(of_receipt).with_output_types(Event)
        letters = written[1] | "OfDeadLetters" >> beam.Map(of_letter).with_output_types(Event)
        lines = (delivered, letters) | beam.Flatten()
        put = lines | "Put" >> WriteTo(ReceiptObjects(self._prefix), timers=self._timers, drain=self._drain)
        put.dead_letters | "Unwritten" >> beam.Map(_unwritten)
        return put.delivered

    def display_data(self) -> dict[str, Any]:
        return {"prefix": self._prefix}


def of_receipt(receipt: Receipt) -> Event:
    """A receipt as a line, in the form of an event of ReceiptObjects."""
    ids = list(receipt.event_ids)
    return _line(
        ReceiptLine(receipt.destination, "delivered", receipt.at, receipt.attempts, ids, receipt.place)
    )


def of_letter(letter: DeadLetter) -> Event:
    """A dead letter as a line."""
    ids = [letter.event_id]
    return _line(
        ReceiptLine(letter.destination, "dead_letter", letter.at, letter.attempts, ids, cause=letter.cause)
    )


def _line(line: ReceiptLine) -> Event:
    raw = _encode(line)
    at = datetime.fromtimestamp(line.at, timezone.utc).isoformat()
    return Event(hashlib.blake2b(raw, digest_size=16).hexdigest(), line.state, at, raw)


def _unwritten(letter: DeadLetter) -> None:
    log.error("a receipt is not kept anywhere: %s", letter.cause)


def read_receipts(prefix: str, since: str = "") -> Iterator[ReceiptLine]:
    """The lines of all objects under the prefix, from the day `since` (YYYY-MM-DD) on, in the order of their
    names. Raises BeamIOError; lines that are none are passed over."""
    for path in objects_under(prefix, ReceiptObjects.compression):
        if path.rpartition("/dt=")[2][:10] < since:
            continue
        with FileSystems.open(path, BINARY, CompressionTypes.GZIP) as file:
            for line in iter(file.readline, b""):
                with contextlib.suppress(msgspec.MsgspecError):
                    yield _decode(line)
