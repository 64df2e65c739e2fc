"""When to try again."""

from __future__ import annotations

import httpx
import pytest

from transforms.retry import MAX_RETRY_AFTER, Backoff, retry_after

NOW = 1_772_366_400.0  # Sun, 01 Mar 2026 12:00:00 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("99999999", 3600.0),
        ("9" * 400, None),
        ("-5", None),
        ("+5", None),
        ("1_0", None),
        ("\u0663", None),
        ("\uff11", None),
        ("1.", None),
        ("0x5", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
        ("1e999", None),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 12:00:30 -0000", 30.0),
        ("Sunday, 01-Mar-26 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("Sun, 01 Mar 2099 12:00:00 GMT", 3600.0),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_an_hour(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds
    assert retry_after(httpx.Headers([(b"Retry-After", value.encode())]), NOW) == seconds


def test_without_the_header_nothing_is_asked_for() -> None:
    assert retry_after({}, NOW) is None


def test_back_off_doubles_up_to_its_cap() -> None:
    longest = [
        Backoff(base=1.0, cap=10.0).seconds(failures, lambda low, high: high) for failures in range(1, 7)
    ]
    assert longest == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert Backoff().seconds(10**6, lambda low, high: high) < MAX_RETRY_AFTER
