"""HTTP statuses and headers as outcomes."""

from __future__ import annotations

import pytest

from transforms.write.failure import is_credential, is_delivered, refused

NOW = 1_772_366_400.0  # Sun, 01 Mar 2026 12:00:00 GMT


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504, 599])
def test_what_passes_by_itself_is_later(status: int) -> None:
    outcome = refused("S", status, {}, 3, NOW)
    assert list(outcome.later) == [0, 1, 2]
    assert not outcome.blocked
    assert not outcome.too_large
    assert not outcome.rejected


@pytest.mark.parametrize(
    ("status", "unknown"),
    [
        *((status, False) for status in (408, 429, 500, 503)),
        *((status, True) for status in (502, 504, 520, 521, 522, 523, 524, 525, 526, 527, 530, 598, 599)),
    ],
)
def test_what_a_gateway_lost_the_answer_to_may_have_arrived(status: int, unknown: bool) -> None:
    outcome = refused("S", status, {}, 3, NOW)
    assert outcome.unknown == unknown
    assert ("may have arrived" in outcome.cause) == unknown


def test_413_is_too_large() -> None:
    outcome = refused("S", 413, {}, 2, NOW)
    assert outcome.too_large
    assert list(outcome.later) == [0, 1]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (301, "URL"),
        (307, "URL"),
        (401, "credential"),
        (403, "credential"),
        (404, "URL"),
        (405, "URL"),
        (407, "proxy"),
        (415, "--http_compression=none"),
        (400, "400"),
        (418, "418"),
    ],
)
def test_what_a_person_must_mend_blocks_and_loses_nothing(status: int, word: str) -> None:
    outcome = refused("Splunk at http://x", status, {"location": "https://elsewhere/"}, 2, NOW)
    assert outcome.blocked
    assert list(outcome.later) == [0, 1]
    assert word in outcome.cause
    assert "Splunk at http://x" in outcome.cause
    assert "kept" in outcome.cause


def test_429_and_503_carry_the_wait() -> None:
    for status in (429, 503):
        assert refused("S", status, {"retry-after": "9"}, 1, NOW).retry_after == 9.0


def test_statuses_have_their_kind() -> None:
    assert [status for status in (199, 200, 202, 204, 299, 300) if is_delivered(status)] == [
        200,
        202,
        204,
        299,
    ]
    assert [status for status in (400, 401, 403, 404) if is_credential(status)] == [401, 403]
