"""A cluster's receipts: what a sink said is kept in objects, and found there by id."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from pipelines.where import main
from tests.transforms.feed.journal.test_receipts import id_at
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Receipt
from transforms.write.receipt_objects import (
    ReceiptObjects,
    WriteReceipts,
    of_receipt,
    read_receipts,
)

AT = 1_772_366_400.0  # 2026-03-01T12:00:00Z
RNG = random.Random(3)
IDS = [id_at(AT + n, RNG) for n in range(4)]
DELIVERED = [
    Receipt("s3", "b1", IDS[:2], 1, AT + 5, "s3://b/key"),
    Receipt("splunk", "b2", IDS[:3], 2, AT + 86_400, "index main"),
]
REFUSED = [DeadLetter("write", "s3", "invalid: no", b"{}", IDS[2], 1, AT + 6)]


def written(place: str) -> None:
    with beam.Pipeline(FnApiRunner(), options=PipelineOptions([])) as pipeline:
        delivered = pipeline | "Delivered" >> beam.Create(DELIVERED)
        letters = pipeline | "Letters" >> beam.Create(REFUSED)
        (delivered, letters) | WriteReceipts(place)


def test_they_are_found_by_id(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(f"{tmp_path}/receipts")
    assert {path.parent.name for path in tmp_path.rglob("*.ndjson.gz")} == {"dt=2026-03-01", "dt=2026-03-02"}
    assert main([f"--receipts={tmp_path}/receipts", "--json=true", *IDS]) == 0
    first, second, third, fourth = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["destinations"] == {
        "s3": {
            "state": "delivered",
            "at": "2026-03-01T12:00:05.000Z",
            "place": "s3://b/key",
            "cause": None,
            "attempts": 1,
        },
        "splunk": {
            "state": "delivered",
            "at": "2026-03-02T12:00:00.000Z",
            "place": "index main",
            "cause": None,
            "attempts": 2,
        },
    }
    assert second["destinations"].keys() == {"s3", "splunk"}
    assert third["destinations"]["s3"]["state"] == "dead_letter"
    assert third["destinations"]["s3"]["cause"] == "invalid: no"
    assert (fourth["received_at"], fourth["destinations"]) == (None, {})
    assert main([f"--receipts={tmp_path}/receipts", IDS[0]]) == 0
    assert capsys.readouterr().out.splitlines()[:2] == [
        IDS[0],
        "  s3      delivered 2026-03-01T12:00:05.000Z, 1 attempt: s3://b/key",
    ]


def test_days_before_the_event_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(str(tmp_path))
    opened: list[str] = []
    really = FileSystems.open

    def noted(path: str, *more: Any) -> Any:
        opened.append(path)
        return really(path, *more)

    monkeypatch.setattr(FileSystems, "open", noted)
    assert [line.destination for line in read_receipts(str(tmp_path), "2026-03-02")] == ["splunk"]
    assert len(opened) == 1


def test_a_store_that_refuses_them_is_later_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    outcome = (
        ReceiptObjects(f"{tmp_path}/file").open().write(Batch([of_receipt(DELIVERED[0])], partition="dt=x"))
    )
    assert outcome is not None
    assert list(outcome.later) == [0]
    assert "--receipts" in outcome.cause
