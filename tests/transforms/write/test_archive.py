"""Partitions and keys of the archive."""

from __future__ import annotations

import pytest

from tests.transforms.write.encodings import batch, event
from transforms.event import Batch
from transforms.write.archive import NO_HOUR, hour_partition, is_key, object_key, plain_name


def test_partition_is_the_hour_in_utc() -> None:
    assert hour_partition(event(1)) == "dt=2026-03-01/hour=12"
    assert hour_partition(event(1, "2026-03-01T01:10:00+03:00")) == "dt=2026-02-28/hour=22"


@pytest.mark.parametrize("text", ["", "now", "2026-13-01T00:00:00Z", "../../../etc/passwd"])
def test_without_a_time_the_partition_is_hives_null(text: str) -> None:
    assert hour_partition(event(1, text)) == NO_HOUR


def test_key_is_the_first_event_and_the_batch() -> None:
    made = batch(3, "dt=2026-03-01/hour=12")
    key = object_key(made, ".ndjson.gz")
    assert key == f"dt=2026-03-01/hour=12/{made.events[0].id}-{made.id}.ndjson.gz"
    assert is_key(key)
    assert object_key(batch(3, "dt=2026-03-01/hour=12"), ".ndjson.gz") == key


@pytest.mark.parametrize(
    "hostile", ["../../x", "/etc/passwd", "a/b", "..", ".", "", "\0", "é", "a\nb", "x" * 5000, "~", "C:\\x"]
)
def test_ids_never_escape_into_paths(hostile: str) -> None:
    name = plain_name(hostile)
    assert name
    assert len(name) <= 64
    assert not set(name) & set("/\\.\0\n:~")
    key = object_key(Batch([event(1, event_id=hostile)], partition=NO_HOUR), ".ndjson")
    assert is_key(key)
    assert key.count("/") == 2


@pytest.mark.parametrize(
    "text", ["", "../x", "/dt=2026-03-01/hour=12/a.ndjson", "dt=2026-03-01/hour=12/../a.ndjson"]
)
def test_other_paths_are_no_keys(text: str) -> None:
    assert not is_key(text)
