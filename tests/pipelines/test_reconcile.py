"""`reconcile`: the ledger against what a destination really has, read back from real servers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from pipelines import reconcile
from pipelines.flags import reconcile as flags
from pipelines.flags.settings import parse
from pipelines.practice.events import generate
from pipelines.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.practice.feed_stream import prepare
from pipelines.practice.ledger import Ledger, Webhook
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.kafka import KafkaServer
from tests.servers.seaweedfs import SeaweedFS
from tests.transforms.feed.journal.support import open_journal
from tests.transforms.write.manual_clock import ManualClock, PassingClock
from transforms.dead_letter import DeadLetter, encode
from transforms.event import Batch, Event
from transforms.event_types import KNOWN
from transforms.feed.intake import iso
from transforms.feed.journal import Journal
from transforms.feed.ledger import Stopped
from transforms.parse import parse_frames
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination
from transforms.write.created_at import epoch_milliseconds
from transforms.write.delivery.ledger import Settlement
from transforms.write.files.destination import Files
from transforms.write.kafka.destination import Kafka
from transforms.write.s3.destination import S3

ALL = sorted(KNOWN)
SECONDS = 30


@dataclass
class Service:
    """A service that published events over half a minute, ten minutes ago."""

    feed: PracticeFeed
    clock: PassingClock
    webhook: Webhook
    events: list[Event] = field(default_factory=list)

    def publish(self, number: int = 10, seconds: int = SECONDS) -> None:
        for second in range(seconds):
            prepared = prepare(islice(generate(second, now=self.clock.now()), number))
            self.feed.ledger.published(prepared)
            self.events += parse_frames(prepared.events, 0.0)[0]
            self.clock.advance(1.0)
        self.clock.advance(600.0)

    def run(self, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, dict[str, Any]]:
        """The exit code, and what was printed as JSON."""
        code = reconcile.main([*self.arguments(), "--json=true", *more])
        return code, json.loads(capsys.readouterr().out or "{}")

    def arguments(self) -> list[str]:
        return [f"--feed_url={self.feed.url}", f"--feed_api_key={PRACTICE_KEY}"]


@pytest.fixture
def service() -> Iterator[Service]:
    clock = PassingClock()
    with PracticeFeed(ledger=Ledger(clock=clock)) as feed:
        webhook = feed.ledger.register(PRACTICE_DEVELOPER, "https://a.test", ALL)
        clock.advance(1.0)
        service = Service(feed, clock, webhook)
        service.publish()
        yield service


def deliver(destination: Destination, events: Sequence[Event]) -> None:
    """As the job would."""
    writer = destination.open()
    partitions: dict[str, list[Event]] = {}
    for event in events:
        partitions.setdefault(destination.partition(event), []).append(event)
    for partition, some in partitions.items():
        outcome = writer.write(Batch(some, partition=partition))
        assert outcome is None, outcome
    writer.close()


def counts(found: dict[str, Any]) -> tuple[int, ...]:
    (account,) = found["destinations"].values()
    names = ("delivered", "dead_lettered", "pending", "missing", "not_provable", "unexpected")
    return tuple(account[name] for name in names)


def test_files_that_have_everything_are_complete(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(Files(str(tmp_path / "out")), service.events)
    code, found = service.run(capsys, "--against=files", f"--files_dir={tmp_path / 'out'}")
    assert (code, counts(found)) == (0, (300, 0, 0, 0, 0, 0))
    assert found["complete"] is True
    assert (found["ledger"], found["webhook"], found["not_covered"]) == (300, service.webhook.id, [])


def test_what_is_missing_is_named_and_what_is_accounted_for_otherwise_is_not(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    *there, dead, other_dead, lost, also_lost = service.events
    strange = Event(there[0].id[:-3] + "ZZZ", "grant.created", there[0].created_at, b"")
    strange = Event(
        strange.id,
        strange.type,
        strange.created_at,
        there[0].raw.replace(there[0].id.encode(), strange.id.encode()),
    )
    deliver(Files(str(tmp_path / "out")), [*there, strange])
    letters = tmp_path / "state" / "dead_letters"
    letters.mkdir(parents=True)
    lines = [
        encode(DeadLetter("write", name, "rejected", event.raw, event.id, 1, 1.0), 1.0)
        for name, event in (("files", dead), ("splunk", other_dead))
    ]
    (letters / "2026-03-01.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    missing = tmp_path / "missing.ndjson"
    code, found = service.run(
        capsys,
        "--against=files",
        f"--files_dir={tmp_path / 'out'}",
        f"--state_dir={tmp_path / 'state'}",
        f"--missing={missing}",
    )
    assert (code, counts(found)) == (1, (296, 1, 0, 3, 0, 1))
    named = [json.loads(line) for line in missing.read_text().splitlines()]
    assert {each["id"] for each in named} == {other_dead.id, lost.id, also_lost.id}
    assert {(each["type"], each["created_at"]) for each in named if each["id"] == lost.id} == {
        (lost.type, lost.created_at)
    }
    assert [path.name for path in tmp_path.iterdir() if "checkpoint" in path.name] == []


def test_what_the_destination_does_not_ask_for_is_not_missing(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grants = [event for event in service.events if event.type.startswith("grant.")]
    deliver(Files(str(tmp_path / "out")), grants[1:])
    given = ["--against=files", f"--files_dir={tmp_path / 'out'}", "--files_types=grant.*"]
    code, found = service.run(capsys, *given)
    assert (code, counts(found)) == (1, (len(grants) - 1, 0, 0, 1, 0, 0))
    assert found["destinations"]["files"]["filtered"] == 300 - len(grants)


def test_types_that_the_ledger_lacks_are_not_provable(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.webhook.events = ("grant.created",)
    service.webhook.rows = [row for row in service.webhook.rows if row.event_type == "grant.created"]
    deliver(Files(str(tmp_path / "out")), service.events)
    code, found = service.run(capsys, "--against=files", f"--files_dir={tmp_path / 'out'}")
    created = sum(event.type == "grant.created" for event in service.events)
    assert (code, counts(found)) == (0, (created, 0, 0, 0, 300 - created, 0))
    assert set(found["not_covered"]) == KNOWN - {"grant.created"}


def test_time_before_the_webhook_is_not_provable(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.webhook.created_at += 10.0
    service.webhook.rows = service.webhook.rows[90:]
    deliver(Files(str(tmp_path / "out")), service.events)
    code, found = service.run(
        capsys, "--against=files", f"--files_dir={tmp_path / 'out'}", "--since=2026-03-01"
    )
    assert (code, counts(found)) == (0, (210, 0, 0, 0, 90, 0))


def test_a_window_is_neither_more_nor_less(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(Files(str(tmp_path / "out")), service.events[:150])
    since, until = service.events[100].created_at, service.events[190].created_at
    code, found = service.run(
        capsys,
        "--against=files",
        f"--files_dir={tmp_path / 'out'}",
        f"--since={since}",
        f"--until={until}",
        "--ledger_webhook=" + service.webhook.id,
    )
    assert (code, counts(found)) == (1, (50, 0, 0, 50, 0, 0))


def test_the_last_minute_is_left_out(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(Files(str(tmp_path / "out")), service.events)
    service.feed.ledger.published(prepare(islice(generate(99, now=service.clock.now()), 5)))
    service.clock.advance(30.0)
    code, found = service.run(capsys, "--against=files", f"--files_dir={tmp_path / 'out'}")
    assert (code, counts(found)) == (0, (300, 0, 0, 0, 0, 0))


def test_a_run_that_was_interrupted_goes_on(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.publish(20, 500)
    deliver(Files(str(tmp_path / "out")), service.events[1:])
    arguments = [*service.arguments(), "--against=files", f"--files_dir={tmp_path / 'out'}"]
    settings = parse([*arguments, f"--missing={tmp_path / 'missing'}"], {}, flags.PROGRAM)
    stop, pages = threading.Event(), []
    read = reconcile.Bars.read

    def interrupting(self: reconcile.Bars, *given: Any) -> None:
        pages.append(given)
        if len(pages) == 40:
            stop.set()
        read(self, *given)

    monkeypatch.setattr(reconcile.Bars, "read", interrupting)
    with pytest.raises(Stopped):
        reconcile.reconcile(settings, stop, service.clock)
    (checkpoint,) = tmp_path.glob("missing.*.checkpoint")
    with checkpoint.open("r+b") as file:  # and the last block is torn
        file.truncate(checkpoint.stat().st_size - 7)
    asked = service.feed.request_count
    stop.clear()
    result = reconcile.reconcile(settings, stop, service.clock)
    account = result.destinations["files"]
    assert (result.ledger, account.delivered, account.missing) == (10_300, 10_299, 1)
    assert service.feed.request_count - asked < 103 - 40 + 20
    assert json.loads((tmp_path / "missing").read_text())["id"] == service.events[0].id
    assert list(tmp_path.glob("missing.*")) == []


def test_a_service_that_stays_away_fails_and_says_how_to_go_on(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconcile, "TRIES", 1)
    service.feed.answer(503, times=5, path="/deliveries")
    (tmp_path / "out").mkdir()
    code = reconcile.main([*service.arguments(), "--against=files", f"--files_dir={tmp_path / 'out'}"])
    assert code == 1
    assert any("answered 503" in message and "goes on from here" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--against=files"], "--against=files: needs --files_dir"),
        (["--against=splunk"], "--against: must be one of receipts, files, s3, bigquery, kafka"),
        (["--since=2026-03-02", "--until=2026-03-01"], "--until: must be later than --since"),
        (["--since=yesterday"], "must be a moment"),
        (["--missing=/nowhere/at/all"], "lies in a directory that does not exist"),
        (["--state_dir=/nowhere"], "is no directory; the receipts are in the job's"),
        (["--window_size=3"], "--window_size: has no meaning for reconcile"),
    ],
)
def test_wrong_parameters(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reconcile.main(["--feed_api_key=k", *arguments]) == 2
    assert expected in capsys.readouterr().err


def test_the_table_is_for_people(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deliver(Files(str(tmp_path / "out")), service.events[:-1])
    code = reconcile.main([*service.arguments(), "--against=files", f"--files_dir={tmp_path / 'out'}"])
    said = capsys.readouterr().out
    assert code == 1
    assert "Missing: 1 events; --missing=FILE names them" in said
    assert "delivered" in said


# Receipts


@pytest.fixture
def journal(service: Service, tmp_path: Path) -> Iterator[Journal]:
    """A journal that received the first 280 of 300 events: splunk has 200 of them, refused one, waits for
    the rest; kafka has all."""
    clock = ManualClock(service.clock.now() - 630.0)
    with closing(open_journal(tmp_path / "state", clock=clock, receipt_retention=86_400.0)) as opened:
        splunk, kafka = opened.cursor("splunk"), opened.cursor("kafka")
        taken = service.events[:280]
        opened.append(taken, [])
        clock.advance(630.0)
        for cursor, end, dead in ((splunk, 201, [7]), (kafka, 280, [])):
            batch = Batch(taken[:end], range(end))
            cursor.commit([], [batch])
            delivered = [each for each in range(end) if each not in dead]
            causes = ["bad: x"] * len(dead)
            cursor.commit([Settlement(batch, delivered, dead, clock.now(), "there", causes)], [])
        yield opened


def test_against_receipts_each_destination_has_its_account(
    service: Service, journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = service.run(
        capsys, f"--state_dir={tmp_path / 'state'}", f"--missing={tmp_path / 'missing'}", "--since=2026-03-01"
    )
    expected = {"delivered": 200, "dead_lettered": 1, "pending": 79, "missing": 20, "filtered": 0}
    assert found["destinations"]["splunk"] == {**expected, "not_provable": 0, "unexpected": 0}
    assert found["destinations"]["kafka"] == {
        **expected,
        "delivered": 280,
        "dead_lettered": 0,
        "pending": 0,
        "not_provable": 0,
        "unexpected": 0,
    }
    assert (code, found["ledger"], found["missing"]) == (1, 300, 20)
    named = [json.loads(line)["id"] for line in (tmp_path / "missing").read_text().splitlines()]
    assert sorted(named) == sorted(event.id for event in service.events[280:])


def test_against_receipts_what_was_received_and_is_not_in_the_ledger(
    service: Service, journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (f"--state_dir={tmp_path / 'state'}", "--since=2026-03-01", f"--until={_text(service, 270)}")
    service.webhook.rows = service.webhook.rows[10:]
    code, found = service.run(capsys, *arguments)
    assert (code, found["missing"]) == (1, 0)
    assert found["destinations"]["kafka"]["unexpected"] == 10
    service.webhook.events = tuple(set(ALL) - {"vc.issued"})
    _, found = service.run(capsys, *arguments)
    assert found["destinations"]["kafka"]["unexpected"] == 0
    assert found["destinations"]["kafka"]["not_provable"] == 10


def _text(service: Service, number: int) -> str:
    """A moment between an event and the one before."""
    return iso((epoch_milliseconds(service.events[number].created_at) or 0) / 1000 - 0.5)


def test_by_default_it_begins_with_the_receipts_and_a_gap_is_told(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not with the webhook, which is older than the journal."""
    clock = ManualClock(service.clock.now() - 615.0)
    with closing(open_journal(tmp_path / "state", clock=clock, receipt_retention=86_400.0)) as opened:
        opened.append(service.events[150:160], [])
        opened.heard()
        opened.open_gap("reset by the service")
        clock.advance(2.5)
        opened.close_gap()
        opened.append(service.events[180:], [])
    code, found = service.run(
        capsys, f"--state_dir={tmp_path / 'state'}", f"--missing={tmp_path / 'missing'}"
    )
    assert (code, found["ledger"], found["missing"]) == (1, 150, 20)
    lines = [json.loads(line) for line in (tmp_path / "missing").read_text().splitlines()]
    assert {line["gap"] for line in lines} == {"reset by the service"}
    assert found["destinations"]["(received)"]["delivered"] == 130


def test_receipts_that_are_gone_prove_nothing(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = ManualClock(service.clock.now() - 600.0)
    with closing(open_journal(tmp_path / "state", clock=clock, receipt_retention=100.0)) as opened:
        opened.append(service.events[:100], [])
        for _ in range(30):
            clock.advance(20.0)
            opened.trim()
        opened.append(service.events[290:], [])
    _, found = service.run(capsys, f"--state_dir={tmp_path / 'state'}", "--since=2026-03-01")
    account = found["destinations"]["(received)"]
    assert (account["delivered"], account["missing"], account["not_provable"]) == (10, 0, 290)


def test_a_state_directory_without_a_journal(
    service: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").mkdir()
    assert reconcile.main([*service.arguments(), f"--state_dir={tmp_path / 'state'}"]) == 2
    assert any("holds no journal" in message for message in caplog.messages)


def test_what_is_pending_is_not_missing_and_what_a_receipt_says_is_told(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Read back, with the journal of the job beside."""
    deliver(Files(str(tmp_path / "out")), service.events[:100])
    clock = ManualClock(service.clock.now() - 630.0)
    with closing(open_journal(tmp_path / "second", clock=clock, receipt_retention=86_400.0)) as opened:
        cursor = opened.cursor("files")
        opened.append(service.events[:150], [])
        batch = Batch(service.events[:110], range(110))
        cursor.commit([], [batch])
        cursor.commit([Settlement(batch, list(range(110)), [], 1.0, "dt=2026-03-01/hour=12/x.ndjson.gz")], [])
        code, found = service.run(
            capsys,
            "--against=files",
            f"--files_dir={tmp_path / 'out'}",
            f"--state_dir={tmp_path / 'second'}",
            f"--missing={tmp_path / 'missing'}",
            f"--until={_text(service, 150)}",
        )
    assert (code, counts(found)) == (1, (100, 0, 40, 10, 0, 0))
    lines = [json.loads(line) for line in (tmp_path / "missing").read_text().splitlines()]
    assert {line["receipt"] for line in lines} == {"dt=2026-03-01/hour=12/x.ndjson.gz"}


# Real servers


def test_s3(
    service: Service,
    seaweedfs: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    bucket = f"reconcile-{time.time_ns()}"
    seaweedfs.client().create_bucket(Bucket=bucket)
    deliver(S3(bucket, "kept", endpoint=seaweedfs.endpoint, compression="zstd"), service.events[5:])
    code, found = service.run(
        capsys,
        "--against=s3",
        f"--s3_bucket={bucket}",
        "--s3_prefix=kept",
        f"--s3_endpoint={seaweedfs.endpoint}",
    )
    assert (code, counts(found)) == (1, (295, 0, 0, 5, 0, 0))


def test_kafka(service: Service, broker: KafkaServer, capsys: pytest.CaptureFixture[str]) -> None:
    topic = f"reconcile-{time.time_ns()}"
    broker.create_topic(topic)
    older = parse_frames(islice(generate(7, now=service.clock.now() - 86_400), 50), 0.0)[0]
    destination = Kafka(broker.servers, topic)
    deliver(destination, older)
    deliver(destination, [*service.events[7:], *service.events[7:20]])
    flags = ["--against=kafka", f"--kafka_bootstrap_servers={broker.servers}", f"--kafka_topic={topic}"]
    code, found = service.run(capsys, *flags)
    assert (code, counts(found)) == (1, (293, 0, 0, 7, 0, 0))


@pytest.mark.parametrize("schema", ["typed", "compatible"])
def test_bigquery(
    service: Service, emulator: Emulator, capsys: pytest.CaptureFixture[str], schema: Any
) -> None:
    table = f"{PROJECT}.events.reconcile_{time.time_ns()}"
    deliver(
        BigQuery(table, "insert_all", schema, endpoint=emulator.rest),
        service.events[9:],
    )
    code, found = service.run(
        capsys,
        "--against=bigquery",
        f"--bigquery_table={table}",
        f"--bigquery_schema={schema}",
        "--bigquery_method=insert_all",
        f"--bigquery_endpoint={emulator.rest}",
    )
    assert (code, counts(found)) == (1, (291, 0, 0, 9, 0, 0))
