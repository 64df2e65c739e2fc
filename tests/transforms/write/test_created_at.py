"""RFC 3339 text as exact decimal seconds, and as date and hour in UTC."""

from __future__ import annotations

import random
from datetime import datetime, timezone

import pytest

from transforms.write import created_at
from transforms.write.created_at import date_and_hour, epoch_milliseconds, epoch_text, epoch_texts


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-03-01T12:00:00Z", b"1772366400"),
        ("2026-03-01T12:00:00.000Z", b"1772366400.000"),
        ("2026-03-01T12:00:00.123Z", b"1772366400.123"),
        ("2026-03-01T12:00:00.123456Z", b"1772366400.123456"),
        ("2026-03-01T12:00:00.1234567891Z", b"1772366400.123456789"),
        ("2026-03-01t12:00:00.5z", b"1772366400.5"),
        ("2026-03-01T14:00:00.5+02:00", b"1772366400.5"),
        ("2026-03-01T06:30:00-05:30", b"1772366400"),
        ("2016-12-31T23:59:60Z", b"1483228800"),
        ("1970-01-01T00:00:00Z", b"0"),
    ],
)
def test_rfc3339_becomes_exact_decimal_seconds(text: str, seconds: bytes) -> None:
    assert epoch_text(text) == seconds


INVALID = [
    "",
    "yesterday",
    "2026-03-01",
    "2026-03-01T12:00:00",
    "2026-03-01T12:00:00.Z",
    "2026-03-01T12:00:00,5Z",
    "2026-02-30T12:00:00Z",
    "2026-03-01T24:00:00Z",
    "2026-03-01T12:00:61Z",
    "2026-03-01T12:00:00+24:00",
    "2026-03-01T12:00:00.٣Z",
    "٢٠٢٦-03-01T12:00:00Z",
    "2026-03-01T12:00:00." + "0" * 30 + "Z",
    "0001-01-01T00:00:00+01:00",
]


@pytest.mark.parametrize("text", INVALID)
def test_what_is_not_rfc3339_has_neither_time_nor_hour(text: str) -> None:
    assert epoch_text(text) == b""
    assert date_and_hour(text) is None


def test_before_1970_has_an_hour_but_no_time() -> None:
    assert epoch_text("1969-12-31T23:59:59Z") == b""
    assert date_and_hour("1969-12-31T23:59:59Z") == ("1969-12-31", "23")


def test_agrees_with_datetime_on_random_moments() -> None:
    dice = random.Random(1)
    for _ in range(500):
        moment = datetime.fromtimestamp(dice.randrange(0, 2**32), timezone.utc)
        text = moment.strftime("%Y-%m-%dT%H:%M:%S") + ".007Z"
        assert epoch_text(text) == b"%d.007" % int(moment.timestamp())
        assert date_and_hour(text) == (moment.strftime("%Y-%m-%d"), moment.strftime("%H"))


def test_the_hour_is_that_of_utc() -> None:
    assert date_and_hour("2026-03-01T00:30:00.5+01:00") == ("2026-02-28", "23")
    assert date_and_hour("2026-12-31T23:30:00-00:45") == ("2027-01-01", "00")


LONG = "2026-03-01T12:00:00." + "1" * 99 + "Z"
ODD = ["", "2026-03-01T12:00:00+02:00", "1969-12-31T23:59:59Z", LONG, "no time", "Z", "2026-03-01T12:00:00z"]
RUNS = [
    [f"2026-03-01T12:00:00.{n % 1000:03d}Z" for n in range(1200)],
    [f"2026-03-01T12:{n // 60:02d}:{n % 60:02d}Z" for n in range(600)],
    [f"2026-03-01T12:00:00.{n}Z" for n in range(900)],
    [f"1999-03-01T12:00:00.{n:03d}Z" for n in range(100)],
    [*["2026-03-01T12:00:00Z"] * 40, "2026-03-01T12:00:00.12", "2026-03-01T12:00:00Z", ".345Z"],
    ["2026-03-01T12:00:00.1Z2026-03-01T12:00:00.2Z", *["2026-03-01T12:00:00.1Z"] * 40, "Z"],
    [*["2026-03-01T12:00:00Z"] * 40, "1772366400Z"],
    ["2026-03-01T12:00:00.1234567891Z"] * 40,
    ["2026-03-01T12:00:00.1Z2026-03-01T12:00:00.2Z", *["2026-03-01T12:00:00.1Z"] * 40, ""],
    ["2026-03-01T12:00:00.1Z\n2026-03-01T12:00:00.2Z", *["2026-03-01T12:00:00.1Z"] * 40, ""],
    ["2026-03-01T12:00:00.1", "Z2026-03-01T12:00:00.2Z", *["2026-03-01T12:00:00.1Z"] * 40],
    [*["2026-03-01T12:00:00.1Z"] * 40, "2026-03-01T12:00:00.1Z\n"],
]


@pytest.mark.parametrize("texts", RUNS)
@pytest.mark.parametrize("odd", [[], *([text] for text in ODD), ODD])
def test_many_at_once_are_what_each_is_alone(texts: list[str], odd: list[str]) -> None:
    for mixed in (texts + odd, odd + texts, texts[:33] + odd + texts[33:]):
        assert epoch_texts(mixed) == [epoch_text(text) for text in mixed]


def test_huge_text_is_not_kept_in_a_cache() -> None:
    caches = (created_at.ending, created_at.short_epoch_text, created_at.utc_hour)
    before = [cache.cache_info().currsize for cache in caches]
    assert epoch_text("2026-03-01T12:00:00." + "1" * 100_000 + "Z") == b""
    assert date_and_hour("2026-03-01T12:00:00." + "2" * 100_000 + "Z") is None
    assert epoch_texts(["2026-03-01T12:00:00." + "3" * 100_000 + "Z"] * 40) == [b""] * 40
    assert [cache.cache_info().currsize for cache in caches] == before


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-03-01T12:00:00Z", 1_772_366_400_000),
        ("2026-03-01T12:00:00.5Z", 1_772_366_400_500),
        ("2026-03-01T12:00:00.0429999Z", 1_772_366_400_042),
        ("1970-01-01T00:00:00Z", 0),
        ("", None),
        ("2026-03-01", None),
        ("2026-03-01T12:00:00." + "1" * 50 + "Z", None),
    ],
)
def test_whole_milliseconds(text: str, milliseconds: int | None) -> None:
    assert epoch_milliseconds(text) == milliseconds
