"""Signatures of webhooks, against the service's own Python package."""

from __future__ import annotations

import hashlib
import hmac
import random
import time
from collections.abc import Sequence

import pytest
from grantex import verify_webhook, verify_webhook_signature

from transforms.feed.webhook_signature import TOLERANCE, Verdict, judge, judge_v1, sign, sign_v1

SECRET = "7f" * 24
BODY = b'{"id":"evt_01","type":"grant.created","data":{"name":"J\xc3\xb6rg"}}'
NOW = 1_772_366_400.9


def judged(signature: str, timestamp: str, secrets: Sequence[str] = (SECRET,), body: bytes = BODY) -> Verdict:
    return judge(body, signature, timestamp, secrets, NOW)


@pytest.mark.parametrize("age", [0, 1, -1, TOLERANCE, -TOLERANCE])
def test_what_was_signed_within_the_tolerance_is_valid(age: int) -> None:
    timestamp = str(int(NOW) - age)
    assert judged(sign(BODY, timestamp, SECRET), timestamp) is Verdict.VALID


@pytest.mark.parametrize("age", [TOLERANCE + 1, -TOLERANCE - 1, 10**9, -(10**14)])
def test_what_was_signed_at_another_time_is_stale(age: int) -> None:
    timestamp = str(int(NOW) - age)
    assert judged(sign(BODY, timestamp, SECRET), timestamp) is Verdict.STALE


def test_any_of_the_secrets_will_do() -> None:
    timestamp = str(int(NOW))
    signature = sign(BODY, timestamp, SECRET)
    assert judged(signature, timestamp, ["another", SECRET, "a third"]) is Verdict.VALID
    assert judged(signature, timestamp, ["another", "a third"]) is Verdict.BAD_SIGNATURE
    assert judged(signature, timestamp, []) is Verdict.BAD_SIGNATURE


TIMESTAMP = str(int(NOW))
RIGHT = sign(BODY, TIMESTAMP, SECRET)


@pytest.mark.parametrize(
    ("signature", "timestamp"),
    [
        ("", TIMESTAMP),
        (RIGHT.removeprefix("sha256="), TIMESTAMP),
        (RIGHT.upper(), TIMESTAMP),
        (RIGHT + "0", TIMESTAMP),
        (RIGHT[:-1], TIMESTAMP),
        (f"{RIGHT}, {RIGHT}", TIMESTAMP),
        (RIGHT.replace("sha256", "sha1"), TIMESTAMP),
        (sign(BODY + b" ", TIMESTAMP, SECRET), TIMESTAMP),
        (sign_v1(BODY, SECRET), TIMESTAMP),
        ("sha256=\xe9\xff", TIMESTAMP),
        ("sha256=" + "\u0660" * 64, TIMESTAMP),
        (RIGHT, str(int(NOW) + 1)),
        (RIGHT, ""),
        (RIGHT, f" {TIMESTAMP}"),
        (RIGHT, f"+{TIMESTAMP}"),
        (RIGHT, f"{TIMESTAMP}.0"),
        (RIGHT, TIMESTAMP + "\n"),
        (RIGHT, "1_772_366_400"),
        (RIGHT, "\u0661" * 10),
        (RIGHT, "9" * 5000),
        (RIGHT, "nan"),
    ],
)
def test_anything_else_is_not_signed(signature: str, timestamp: str) -> None:
    assert judged(signature, timestamp) is Verdict.BAD_SIGNATURE


@pytest.mark.parametrize("timestamp", ["", "-5", "1e9", "12.5", "\uff11\uff12", "9" * 16])
def test_a_time_that_is_none_is_not_signed_even_when_it_is(timestamp: str) -> None:
    signed = timestamp.encode() + b"." + BODY
    signature = "sha256=" + hmac.new(SECRET.encode(), signed, hashlib.sha256).hexdigest()
    assert judged(signature, timestamp) is Verdict.BAD_SIGNATURE


def test_we_agree_with_the_services_own_package() -> None:
    dice = random.Random(5)
    for _ in range(500):
        body, secret = dice.randbytes(dice.randrange(400)), dice.randbytes(24).hex()
        now = time.time()
        timestamp = str(int(now) + dice.choice([0, 5, -290, 290, 310, -310, 4000]))
        signature = sign(body, timestamp, secret)
        if dice.random() < 0.5:
            at = dice.randrange(len(signature))
            signature = signature[:at] + dice.choice("0123456789abcdef=") + signature[at + 1 :]
        ours = judge(body, signature, timestamp, [secret], now) is Verdict.VALID
        assert ours == verify_webhook(body, signature, timestamp, secret, TOLERANCE)
        first = sign_v1(body, secret)
        assert verify_webhook_signature(body, first, secret)
        assert judge_v1(body, first, [secret]) is Verdict.VALID
        assert judge_v1(body + b"x", first, [secret]) is Verdict.BAD_SIGNATURE
