"""Pseudonyms: which bytes of an event are replaced, by what, and that all others stay."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.event import Batch, Event
from transforms.parse import parse_frame
from transforms.secret import LiteralSecret, SecretError
from transforms.write.asked import Asked, asked_for, read_fields
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.pseudonyms import Fields, key_found, measures, open_writer, pseudonym

KEY = b"0123456789abcdef"


def replaced(raw: bytes, *paths: str) -> bytes:
    return Fields(paths).replace(raw, lambda text: f"<{text.decode(errors='replace')}>")


@pytest.mark.parametrize(
    ("paths", "right"),
    [
        (["data.p"], '{"data":{"p":"<x>"}}'),
        (["data.p"], ' {"p":"x", "data" : {"q":"x" ,"p" :\t"<x>"} , "d":{"p":"x"}}\n'),
        (["data.p"], '{"data":{"o":{"p":"x"},"p":"<y>"}}'),
        (["data.o.p"], '{"data":{"o":{"p":"<x>"},"p":"y"}}'),
        (["data.l.p"], '{"data":{"l":[{"p":"<x>"},[{"p":"<#1>"}],"p",{"q":"p"}]}}'),
        (["data.p"], '{"data":{"p":["<x>",{"k":"<y>","t":true},["<#-1.5e3>",null]]}}'),
        (["data.p", "data.p.k"], '{"data":{"p":{"k":"<x>","l":"<y>"}}}'),
        (["data.p"], '{"data":{"p":"<x>","p":"<y>"},"data":{"p":"<z>"}}'),
        (["data.p"], '{"data":[{"p":"<x>"}]}'),
        (["data.p"], '{"d\\u0061ta":{"\\u0070":"<x>"}}'),
        (["data.p"], '{"data":{"q":"\\"p\\":\\"x\\"","p":"<{[,:>"}}'),
        (["data.p"], '{"data":{"p":{},"q":[],"r":""}}'),
        (["data.p"], '{"data":"p","x":{"data":{"p":"x"}}}'),
        (["data.p"], '{"data":{"p":"<>"}}'),
    ],
)
def test_named_fields_are_replaced_and_nothing_else(paths: list[str], right: str) -> None:
    """`<x>` stands for the pseudonym of x, and `<#1>` for that of the number 1."""
    raw = re.sub('"<([^>#]*)>"', r'"\1"', re.sub('"<#([^>]*)>"', r"\1", right))
    assert replaced(raw.encode(), *paths).decode() == right.replace("<#", "<")


def test_a_pseudonym_is_what_openssl_prints() -> None:
    # printf %s user_alice | openssl dgst -sha256 -hmac 0123456789abcdef
    assert pseudonym(KEY, b"user_alice") == hmac.new(KEY, b"user_alice", hashlib.sha256).hexdigest()
    assert pseudonym(b"key", b"The quick brown fox jumps over the lazy dog") == (
        "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    )


def test_one_text_has_one_pseudonym_however_it_is_written() -> None:
    texts: list[bytes] = []
    raw = '{"data":{"p":["é\\n12","\\u00e9\\u000a12","12",12,"\\ud83d\\ude00","😀","\\ud800"]}}'.encode()
    Fields(["data.p"]).replace(raw, lambda text: texts.append(text) or "")  # type: ignore[func-returns-value]
    assert texts[0] == texts[1] == "é\n12".encode()
    assert texts[2] == texts[3] == b"12"
    assert texts[4] == texts[5] == "😀".encode()


def test_what_is_no_json_is_refused() -> None:
    for raw in (b'{"data":{"p":"x"}', b'{"data":{"p":"x"}}}', b"{"):
        with pytest.raises(ValueError, match="brackets"):
            replaced(raw, "data.p")


NAMES = st.sampled_from(["data", "p", "q", "o", "é", 'a"b', "p.q", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
PATHS = ["data.p", "data.o.q", "data.é"]


def expected(value: Any, path: tuple[str, ...] = (), hidden: bool = False) -> Any:
    """As somebody would do it who reads the whole event."""
    hidden = hidden or path in (("data", "p"), ("data", "o", "q"), ("data", "é"))
    if isinstance(value, dict):
        return {name: expected(each, (*path, name), hidden) for name, each in value.items()}
    if isinstance(value, list):
        return [expected(each, path, hidden) for each in value]
    return "#" if hidden and value is not None and not isinstance(value, bool) else value


@settings(deadline=None)
@given(
    st.dictionaries(NAMES, VALUES, max_size=3),
    VALUES,
    st.booleans(),
    st.sampled_from([None, 1]),
    st.sampled_from([(",", ":"), (" , ", " :\t")]),
)
def test_it_is_what_reading_the_whole_event_gives(
    around: dict[str, Any], data: Any, ascii: bool, indent: int | None, separators: tuple[str, str]
) -> None:
    event = {"id": "evt_1", **around, "data": data}
    text = json.dumps(event, ensure_ascii=ascii, indent=indent, separators=separators)
    raw = text.encode(errors="surrogatepass")
    tokens: list[bytes] = []

    def mark(text: bytes) -> str:
        tokens.append(text)
        return "#"

    out = Fields(PATHS).replace(raw, mark)
    assert json.loads(out.decode(errors="surrogatepass")) == expected(event)
    assert (out is raw) == (not tokens)


@settings(deadline=None)
@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 60))
def test_whatever_passes_the_parser_is_replaced_in_full(noise: bytes, start: int, end: int) -> None:
    """Bytes of an event overwritten at random: what is an event all the same never keeps the field's text."""
    raw = b'{"id":"evt_1","data":{"p":"SECRET","q":[{"p":"SECRET"}]},"type":"t"}'
    raw = raw[:start] + noise + raw[max(start, end) :]
    if isinstance(parse_frame(raw, 0.0), Event):
        data = json.loads(replaced(raw, "data.p", "data.q.p"), strict=False).get("data")
        for each in [data, *(data.get("q") or () if isinstance(data, dict) else ())]:
            assert not (isinstance(each, dict) and each.get("p") == "SECRET")


@dataclass(frozen=True)
class Siem(Destination):
    script: Callable[[Batch], Outcome | None] = lambda batch: None
    seen: list[Batch] = field(default_factory=list, hash=False)
    asked: Asked = asked_for()
    name = "siem"

    def open(self) -> Writer:
        return SiemWriter(self)


class SiemWriter(Writer):
    def __init__(self, siem: Siem) -> None:
        self._siem = siem

    def write(self, batch: Batch) -> Outcome | None:
        self._siem.seen.append(batch)
        batch.place = "index main"
        batch.remember(b"memo")
        return self._siem.script(batch)


def event(person: str) -> Event:
    raw = json.dumps({"id": f"evt_{person}", "data": {"principalId": person}}).encode()
    return Event(f"evt_{person}", "t", "", raw)


ASKED = Asked(pseudonymize=("data.principalId",), pseudonym_key=LiteralSecret(KEY.decode()))


def test_a_writer_is_handed_pseudonyms_and_the_batch_keeps_its_events_memo_and_place() -> None:
    siem = Siem(asked=ASKED)
    remembered: list[bytes] = []
    batch = Batch([event("alice"), event("bob")], on_remember=lambda batch, memo: remembered.append(memo))
    before = batch.id, list(batch.events)
    assert open_writer(siem).write(batch) is None
    [sent] = siem.seen
    assert [json.loads(each.raw)["data"]["principalId"] for each in sent.events] == [
        pseudonym(KEY, b"alice"),
        pseudonym(KEY, b"bob"),
    ]
    assert [(each.id, each.type) for each in sent.events] == [("evt_alice", "t"), ("evt_bob", "t")]
    assert (sent.id, sent.attempts) == (batch.id, batch.attempts)
    assert (batch.id, list(batch.events)) == before
    assert (batch.memo, batch.place, remembered) == (b"memo", "index main", [b"memo"])


def test_memo_and_place_are_kept_when_a_write_fails() -> None:
    def fail(batch: Batch) -> None:
        raise ConnectionError("cut")

    batch = Batch([event("alice")])
    with pytest.raises(ConnectionError):
        open_writer(Siem(fail, asked=ASKED)).write(batch)
    assert (batch.memo, batch.place) == (b"memo", "index main")


def test_without_pseudonyms_nothing_stands_between() -> None:
    siem = Siem()
    assert isinstance(open_writer(siem), SiemWriter)
    assert measures(siem).sizes == siem.sizes


def test_batches_are_measured_by_what_is_sent() -> None:
    siem = Siem(asked=ASKED)
    events: Sequence[Event] = [event("alice"), event("b")]
    sizes, partition, form = measures(siem)
    open_writer(siem).write(Batch(events))
    assert list(sizes(events)) == [len(each.raw) + 1 for each in siem.seen[0].events]
    assert partition is None
    assert form is None, "nobody else makes the same of these events"


def test_a_partition_never_sees_what_is_hidden() -> None:
    class ByPerson(Siem):
        def partition(self, event: Event) -> str:
            return str(json.loads(event.raw)["data"]["principalId"])

    partition = measures(ByPerson(asked=ASKED)).partition
    assert partition is not None
    assert partition(event("alice")) == "0" * 64


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (Asked(pseudonymize=("data.x",)), "there is no key for pseudonyms"),
        (Asked(pseudonymize=("data.x",), pseudonym_key=LiteralSecret("short")), "less than 16 characters"),
    ],
)
def test_without_a_key_nothing_is_sent_and_the_preflight_says_so(asked: Asked, why: str) -> None:
    siem = Siem(asked=asked)
    with pytest.raises(SecretError, match=why):
        open_writer(siem)
    [found] = key_found(siem)
    assert (found.what, found.passed) == ("the key of its pseudonyms", False)
    assert why in found.cause
    assert [each.passed for each in key_found(Siem(asked=ASKED))] == [True]
    assert list(key_found(Siem())) == []


def test_only_fields_of_data_can_be_named() -> None:
    assert read_fields("data.a, data.b.c-d") == ("data.a", "data.b.c-d")
    for wrong in ("id", "data", "data.", "data..a", "principalId", "data.a,type", "Data.a"):
        with pytest.raises(ValueError):
            read_fields(wrong)
