"""Archives read back from a directory: what is packed, cut, hidden or damaged."""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from tests.transforms.write.encodings import batch
from transforms.archive.choice import Archive, Selection
from transforms.archive.sources import Damaged, Directory, lines_in
from transforms.event import Batch, Event
from transforms.write.files.destination import UNFINISHED, Files

EVENTS = batch(1200).events
PLAIN = b"".join(one.raw + b"\n" for one in EVENTS)


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def lines(data: bytes, size: int = 1000) -> list[bytes]:
    return [line for some, _ in lines_in(pieces(data, size), "it") for line in some]


@pytest.mark.parametrize(
    "pack",
    [
        bytes,
        gzip.compress,
        zstandard.ZstdCompressor().compress,
        lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
        lambda data: b"".join(zstandard.ZstdCompressor().compress(half) for half in (data[:9], data[9:])),
    ],
    ids=["plain", "gzip", "zstd", "two gzip members", "two zstd frames"],
)
@pytest.mark.parametrize("size", [1, 1000, 10**9])
def test_lines_are_those_that_were_packed_however_they_come(
    pack: Callable[[bytes], bytes], size: int
) -> None:
    assert lines(pack(PLAIN[:40_000] if size == 1 else PLAIN), size)[:100] == [
        one.raw for one in EVENTS[:100]
    ]


def test_a_last_line_without_its_end_is_told_apart() -> None:
    found = list(lines_in([b'{"id":"a"}\n{"id":', b'"b"}'], "it"))
    assert found == [([b'{"id":"a"}'], True), ([b'{"id":"b"}'], False)]
    assert list(lines_in([b""], "it")) == []


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-20], lambda data: data[:200] + b"\0" * 50 + data[250:]]
)
def test_damage_is_said_after_what_came_before_it(spoil: Callable[[bytes], bytes]) -> None:
    got: list[bytes] = []
    found = lines_in(pieces(spoil(gzip.compress(PLAIN)), 64), "it")
    with pytest.raises(Damaged, match="it is damaged or ends in the middle"):
        got.extend(line for some, _ in found for line in some)
    assert got == [one.raw for one in EVENTS[: len(got)]]


def read(archive: Archive) -> tuple[list[tuple[str, Event]], Counter[str]]:
    counts: Counter[str] = Counter()
    return [
        (where, event)
        for shard in archive.shards()
        for where, events in archive.read(shard, counts)
        for event in events
    ], counts


def test_files_that_the_archive_wrote_come_back_in_order_byte_for_byte(tmp_path: Path) -> None:
    hours = [batch(20, f"dt=2026-03-01/hour={hour:02}").events for hour in (11, 12)]
    writer = Files(str(tmp_path)).open()
    for hour, events in zip((11, 12), hours, strict=True):
        assert writer.write(Batch(events, partition=f"dt=2026-03-01/hour={hour}")) is None
    (tmp_path / UNFINISHED / "1-x.ndjson.gz").write_bytes(gzip.compress(b'{"id":"unfinished"}\n'))
    (tmp_path / "README").write_text("not ours")
    found, counts = read(Archive(Directory(str(tmp_path))))
    assert found == [("*", event) for events in hours for event in events]
    assert counts == {"events": 40}


def test_hours_outside_of_the_asked_time_are_not_opened(tmp_path: Path) -> None:
    for hour in ("11", "12", "13"):
        place = tmp_path / f"dt=2026-03-01/hour={hour}"
        place.mkdir(parents=True)
        (place / "x.ndjson").write_text(f'{{"id":"{hour}","createdAt":"2026-03-01T{hour}:30:00Z"}}\n')
    noon = 1772366400.0
    archive = Archive(Directory(str(tmp_path)), Selection(since=noon, until=noon + 3600))
    assert [shard.name.split("/")[1] for shard in archive.shards()] == ["hour=12"]
    assert [event.id for _, event in read(archive)[0]] == ["12"]


def test_a_damaged_file_is_counted_and_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.ndjson.gz").write_bytes(gzip.compress(PLAIN)[:500])
    (tmp_path / "b.ndjson").write_bytes(b'no event\n\n{"id":"b"}\n{"id":"torn')
    found, counts = read(Archive(Directory(str(tmp_path))))
    assert found[-1][1].id == "b"
    assert {key: counts[key] for key in ("damaged", "no events", "torn last lines")} == {
        "damaged": 1,
        "no events": 1,
        "torn last lines": 1,
    }
