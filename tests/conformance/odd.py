"""Ten thousand events that JSON allows and nobody expects, the same ones in every run."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence

from transforms.event import Event
from transforms.parse import parse_frames

COUNT = 10_000
MEGABYTE = 1_000_000
# So many have a string of a megabyte; more would be a test of patience.
LARGE = 6
# The feed takes what Python's own reader takes; deeper is `not_json` there.
DEEPEST = 900
SURROGATES = range(0xD800, 0xE000)

Dice = random.Random


def odd_events(seed: int = 20260301) -> list[Event]:
    """COUNT events as the feed hands them out, each with its exact bytes; ids are "odd_00000" and on."""
    dice = Dice(seed)
    raws = [_large(number, dice) for number in range(LARGE)]
    raws += [_raw(number, dice) for number in range(LARGE, COUNT)]
    events, letters = parse_frames(raws, now=0.0)
    assert not letters, letters[0].cause
    assert len({event.id for event in events}) == COUNT
    return events


def _raw(number: int, dice: Dice) -> bytes:
    return KINDS[number % len(KINDS)](number, dice)


def _event(number: int, data: str, more: str = "", rest: str = '"type":"odd","createdAt":"{}"') -> bytes:
    moment = f"2026-03-01T12:00:{number % 60:02d}.{number % 1000:03d}Z"
    head = rest.replace("{}", moment)
    return f'{{"id":"odd_{number:05d}",{head},"data":{data}{more}}}'.encode()


def _letters(dice: Dice, plane: int) -> str:
    """Characters of one plane, those included that stand for nothing."""
    points = [dice.randrange(0x20, 0x10000) | plane << 16 for _ in range(12)]
    ends = [plane << 16 | 0xFFFE, plane << 16 | 0xFFFF]
    return "".join(chr(point) for point in points + ends if point not in SURROGATES)


def unicode(number: int, dice: Dice) -> bytes:
    text = json.dumps(_letters(dice, number // len(KINDS) % 17), ensure_ascii=False)
    return _event(number, f'{{"text":{text},{text}:1}}')


def escaped(number: int, dice: Dice) -> bytes:
    return _event(number, json.dumps({"text": _letters(dice, number // len(KINDS) % 17), "\u2028": "\u2029"}))


def lone_surrogates(number: int, dice: Dice) -> bytes:
    half = f"\\u{dice.choice(SURROGATES):04{dice.choice('xX')}}"
    reversed_pair = r"\udc00\ud800"
    return _event(number, f'{{"half":"a{half}b","{half}":"{reversed_pair}"}}')


def controls(number: int, dice: Dice) -> bytes:
    code = number % 32
    return _event(number, f'{{"nul":"a\\u0000b","c":"\\u{code:04x}","raw":"\x7f\x85\u2028\u2029\ufeff"}}')


NUMBERS = (
    "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551615",
    "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890", "-0", "-0.0", "1E+2",
    "1e400", "-1e-400", "0." + "1234567890" * 5, "1.0", "1.10", "1" + "0" * 400,
)  # fmt: skip


def numbers(number: int, dice: Dice) -> bytes:
    return _event(number, f'{{"n":{dice.choice(NUMBERS)},"list":[{",".join(dice.sample(NUMBERS, 4))}]}}')


def duplicate_keys(number: int, dice: Dice) -> bytes:
    return _event(number, f'{{"a":1,"a":{number},"A":2,"":0,"":1}}', more=',"extra":1,"extra":2')


def nested(number: int, dice: Dice) -> bytes:
    depth = dice.choice([10, 100, DEEPEST if number // len(KINDS) % 50 == 0 else 200])
    return _event(number, '{"a":[' * (depth // 2) + "0" + "]}" * (depth // 2))


def spaced(number: int, dice: Dice) -> bytes:
    """White space wherever JSON allows it, line ends too: the feed joins lines of data with them."""
    tokens = ["", "{", '"a"', ":", "[", "1", ",", "2", "]", "}", ""]
    return _event(number, "".join(dice.choices(" \t\n\r", k=5)).join(tokens))


HOSTILE = (
    '"}},{"event":"', "</script><script>", "'; DROP TABLE events; --", "${jndi:ldap://x}", "{{7*7}}", "\\",
    '\\"', "\r\n\r\nHTTP/1.1 200 OK", "%00%0a", "=cmd|' /C calc'!A0", "\u202e", "data: x\n\n", "null", "NaN",
)  # fmt: skip


def hostile(number: int, dice: Dice) -> bytes:
    text = dice.choice(HOSTILE)
    fields = {"text": text, text: 1, "__proto__": {}, "event_id": "x", "insertId": "y", "time": 0, "id": "z"}
    return _event(number, json.dumps(fields, ensure_ascii=False))


HEADS = (
    '"createdAt":"{}"',  # no type
    '"type":7,"createdAt":"{}"',
    '"type":null,"createdAt":null',
    '"type":"","createdAt":""',
    '"type":"odd"',
    '"type":"odd","createdAt":"yesterday"',
    '"type":"odd","createdAt":1772366400',
    '"type":"odd","createdAt":"0001-01-01T00:00:00Z"',
    '"type":"odd","createdAt":"9999-12-31T23:59:60.999999999Z"',
    '"type":"odd","createdAt":"2026-03-01T12:00:00+14:00"',
    '"type":"a,b:c \\n\\"d\\" \U0001f600 \\ud83d\\ude00","createdAt":"{}"',
    f'"type":"{"x" * 1000}","createdAt":"{{}}"',
    '"type":"\\ud800","createdAt":"{}"',
)


def odd_head(number: int, dice: Dice) -> bytes:
    return _event(number, dice.choice(["{}", "[]", "null", '"text"', "0", "true"]), rest=dice.choice(HEADS))


def _large(number: int, dice: Dice) -> bytes:
    """A string of a megabyte: plain, all escapes, of four bytes a character, or of no pattern at all."""
    texts = ("x" * MEGABYTE, '\\"' * (MEGABYTE // 2), "\U0001f600" * (MEGABYTE // 4))
    if number < len(texts):
        return _event(number, f'{{"text":"{texts[number]}"}}')
    return _event(number, f'{{"text":"{dice.randbytes(MEGABYTE // 2).hex()}"}}')


KINDS: Sequence[Callable[[int, Dice], bytes]] = (
    unicode, escaped, lone_surrogates, controls, numbers, duplicate_keys, nested, spaced, hostile, odd_head,
)  # fmt: skip
