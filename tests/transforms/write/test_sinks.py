"""The named sinks: a destination's own arguments, and the shape that all sinks share."""

from __future__ import annotations

import gzip
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

from transforms.write.sinks import WriteToFiles, WriteToSplunk


def test_write_to_files_stands_alone_in_anyones_pipeline(tmp_path: Path) -> None:
    raw = b'{"id":"evt_1","type":"t","createdAt":"2026-03-01T12:00:00Z"}'
    with beam.Pipeline(FnApiRunner()) as pipeline:
        pipeline | beam.Create([raw]) | WriteToFiles(dir=str(tmp_path))
    (path,) = tmp_path.rglob("*.ndjson.gz")
    assert gzip.decompress(path.read_bytes()) == raw + b"\n"


def test_labels_are_named_after_the_destination(tmp_path: Path) -> None:
    assert WriteToFiles(dir=str(tmp_path)).label == "WriteToFiles"
    assert WriteToSplunk.__name__ == "WriteToSplunk"
    assert "token: a reference" in (WriteToSplunk.__doc__ or "")


def test_an_argument_that_the_destination_does_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="directory"):
        WriteToFiles(directory="x")  # type: ignore[call-arg]
