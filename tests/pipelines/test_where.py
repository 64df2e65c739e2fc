"""`where` tells each state apart in JSON and in words, and answers the same on the status page."""

from __future__ import annotations

import http.client
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import programs
from pipelines.local.status import StatusServer
from pipelines.where import main
from tests.pipelines.local.looks import destination, run
from tests.transforms.feed.journal.support import events, open_journal
from tests.transforms.feed.journal.test_receipts import made
from tests.transforms.write.manual_clock import ManualClock
from transforms.event import Batch
from transforms.feed.journal import Journal
from transforms.write.delivery.ledger import Settlement

PLACE = "s3://audit/grantex-events/date=2026-03-01/hour=12/a.ndjson.gz"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A job's that goes on: events 0 to 4 of `events`, and a gap after them."""
    clock = ManualClock()
    opened = open_journal(tmp_path, clock=clock, receipt_retention=86_400.0)
    s3, _ = opened.cursor("s3"), opened.cursor("splunk")
    taken = events(0, 5)
    opened.append(taken, [], None, "websocket 2")
    clock.advance(2)
    batch = Batch(taken[:4], range(4), attempts=1)
    s3.commit([], [batch])
    settled = Settlement(batch, [0, 1], [2], clock.now(), PLACE, ["invalid: no such"], "busy: try later")
    s3.commit([settled], [])
    clock.advance(10)
    opened.trim()
    opened.open_gap("cut")
    clock.advance(60)
    opened.close_gap()
    yield opened
    opened.close()


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    assert main(["--json=true", *arguments]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_each_state_in_json(journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state_dir = f"--state_dir={tmp_path}"
    lost = made(ManualClock().now() + 40, 1)[0].id
    delivered, dead, later, unsealed, never = asked(
        capsys, state_dir, *[f"evt_{n:08d}" for n in (0, 2, 3, 4)], lost
    )
    assert delivered == {
        "id": "evt_00000000",
        "received_at": "2026-03-01T12:00:00.000Z",
        "connection": "websocket 2",
        "destinations": {
            "s3": {
                "state": "delivered",
                "at": "2026-03-01T12:00:02.000Z",
                "place": PLACE,
                "cause": None,
                "attempts": 1,
            },
            "splunk": {"state": "pending", "at": None, "place": None, "cause": None, "attempts": 0},
        },
        "gap": None,
    }
    assert dead["destinations"]["s3"]["state"] == "dead_letter"
    assert dead["destinations"]["s3"]["cause"] == "invalid: no such"
    assert later["destinations"]["s3"] == {
        "state": "pending",
        "at": "2026-03-01T12:00:02.000Z",
        "place": None,
        "cause": "busy: try later",
        "attempts": 1,
    }
    assert unsealed["destinations"]["s3"]["attempts"] == 0
    assert (never["received_at"], never["destinations"]) == (None, {})
    assert never["gap"] == {
        "since": "2026-03-01T12:00:00.000Z",
        "until": "2026-03-01T12:01:12.000Z",
        "reason": "cut",
    }


def test_the_same_in_words(journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lost, late = (made(ManualClock().now() + after, 1)[0].id for after in (40, 4000))
    ids = ["evt_00000000", "evt_00000002", "evt_00000003", lost, late]
    assert main([f"--state_dir={tmp_path}", *ids]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "evt_00000000  received 2026-03-01T12:00:00.000Z by websocket 2"
    assert lines[1] == f"  s3      delivered 2026-03-01T12:00:02.000Z, 1 attempt: {PLACE}"
    assert lines[2] == "  splunk  pending"
    assert lines[4] == "  s3      dead letter 2026-03-01T12:00:02.000Z, 1 attempt: invalid: no such"
    assert lines[7] == "  s3      pending, 1 attempt; last error 2026-03-01T12:00:02.000Z: busy: try later"
    assert lines[9].startswith(
        f"{lost}  not received: the feed was not heard from 2026-03-01T12:00:00.000Z to "
    )
    assert lines[10] == f"{late}  not received, and no gap is on record when it was made"


def test_ids_are_read_from_the_input(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("evt_00000001\n\nevt_00000004\n"))
    found = asked(capsys, f"--state_dir={tmp_path}", "-")
    assert [each["id"] for each in found] == ["evt_00000001", "evt_00000004"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no event id: give one or more behind the flags, or - to read them"),
        (["evt_1", "--splunk_index=main"], "--splunk_index: has no meaning for where"),
        (["evt_1", "--state_dir=/nowhere/at/all"], "holds no journal: give the --state_dir of the job"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert programs.main(["where", *arguments]) == 2
    assert said in capsys.readouterr().err


def ask(server: StatusServer, path: str) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers["Content-Type"], body


def test_the_page_answers_the_same(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = StatusServer("127.0.0.1", 0, lambda: run(destination("s3")), state_dir=tmp_path)
    try:
        main([f"--state_dir={tmp_path}", "--json=true", "evt_00000000", "evt_00000003"])
        status, kind, body = ask(server, "/where?id=evt_00000000&id=evt_00000003")
        assert (status, kind, body.decode()) == (200, "application/json", capsys.readouterr().out)
        assert ask(server, "/where")[0] == ask(server, "/where?id=")[0] == 400
        assert ask(server, "/where?" + "&".join(["id=a"] * 101))[0] == 400
        odd = json.loads(ask(server, "/where?id=%00%FF%3Cscript%3E")[2])
        assert odd["received_at"] is None
    finally:
        server.close()


def test_a_page_without_a_journal_has_no_such_path() -> None:
    server = StatusServer("127.0.0.1", 0, lambda: run(destination("s3")))
    try:
        assert ask(server, "/where?id=evt_1")[0] == 404
    finally:
        server.close()
