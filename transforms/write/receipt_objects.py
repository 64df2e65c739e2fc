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
from transforms.event import Batch, Event, Receipt
from transforms.write.archive import blocks
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.dead_letters.objects import BINARY, give_beam_options
from transforms.write.keyed.attempts import DrainTime
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
class ReceiptObjects(Destination):
    """Where they go. Its events are the lines."""

    prefix: str
    policy: BatchPolicy = POLICY
    concurrency: int = 1

    name: ClassVar[str] = "receipts"

    def partition(self, event: Event) -> str:
        return f"dt={event.created_at[:10]}"

    def open(self) -> ReceiptWriter:
        return ReceiptWriter(self.prefix)


class ReceiptWriter(Writer):
    """One object a batch; a batch that is written again replaces its own object."""

    def __init__(self, prefix: str) -> None:
        give_beam_options()
        self._prefix = prefix.rstrip("/")

    def write(self, batch: Batch) -> Outcome | None:
        """Put `batch`. Whatever goes wrong is "later": each file system raises exceptions of its own."""
        time = batch.events[0].created_at[11:19].replace(":", "")
        path = f"{self._prefix}/{batch.partition}/{time}-{batch.id}.ndjson.gz"
        try:
            with FileSystems.create(path, BINARY, CompressionTypes.UNCOMPRESSED) as file:
                for block in blocks(batch.events, "gzip"):
                    file.write(block)
        except Exception as error:  # noqa: BLE001 - see above
            cause = (
                f"receipts cannot be written to {self._prefix}: {type(error).__name__}: {error}. They are "
                "kept and written once this is fixed: check the bucket, its permissions, --receipts."
            )
            return Outcome(later=range(len(batch.events)), cause=cause, unknown=True)
        return None


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
    give_beam_options()
    (found,) = FileSystems.match([f"{prefix.rstrip('/')}/**.ndjson.gz"])
    for path in sorted(metadata.path for metadata in found.metadata_list):
        if path.rpartition("/dt=")[2][:10] < since:
            continue
        with FileSystems.open(path, BINARY, CompressionTypes.GZIP) as file:
            for line in iter(file.readline, b""):
                with contextlib.suppress(msgspec.MsgspecError):
                    yield _decode(line)
