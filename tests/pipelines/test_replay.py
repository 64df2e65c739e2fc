"""replay on one machine: from each kind of archive to practice services and files, interrupted and again."""

from __future__ import annotations

import gzip
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pytest

from pipelines import replay
from pipelines.flags.replay import PROGRAM, kept_at, source_of
from pipelines.flags.settings import parse
from pipelines.practice.events import generate
from pipelines.practice.splunk import PracticeSplunk
from tests.integration.evidence import lines_in_files
from tests.transforms.write.encodings import event
from transforms.dead_letter import DeadLetter, encode
from transforms.event import Batch
from transforms.feed.intake import Gap, as_dead_letter
from transforms.feed.journal import Journal
from transforms.parse import parse_frames
from transforms.write.dead_letters.directory import read_dead_letters
from transforms.write.delivery import bundles
from transforms.write.delivery.ledger import Settlement

ROOT = Path(__file__).parents[2]
TOKEN = "practice-hec-token-of-this-test"
NOON = 1772366400.0
EVENTS = list(islice(generate(7, NOON), 2500))


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", TOKEN)


@pytest.fixture
def splunk() -> Iterator[PracticeSplunk]:
    with PracticeSplunk(token=TOKEN) as running:
        yield running


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Some files, in one of which an event stands twice."""
    place = tmp_path / "archive" / "dt=2026-03-01" / "hour=12"
    place.mkdir(parents=True)
    for number in range(5):
        part = EVENTS[number * 500 : (number + 1) * 500]
        again = [EVENTS[3]] if number == 4 else []
        (place / f"{number}.ndjson.gz").write_bytes(gzip.compress(b"\n".join([*part, *again, b""])))
    return f"--from=files:{tmp_path / 'archive'}"


def to_splunk(server: PracticeSplunk) -> list[str]:
    return [f"--splunk_hec_url={server.url}", "--splunk_hec_token=env:TOKEN"]


def run(argv: Sequence[str], stop: threading.Event | None = None) -> int:
    return replay.run([*argv, "--log_format=text"], stop or threading.Event())


def raws(server: PracticeSplunk) -> Counter[bytes]:
    return Counter(bytes(one.event) for one in server.events)


def test_an_archive_goes_to_all_destinations_once_each(
    archive: str, splunk: PracticeSplunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([archive, *to_splunk(splunk), "--files_dir=copy"]) == 0
    assert raws(splunk) == Counter(EVENTS)
    assert Counter(lines_in_files(tmp_path / "copy")) == Counter(EVENTS)
    said = capsys.readouterr().out
    assert "2,501 events" in said
    assert "1 repeats" in said
    assert said.count("2,500") == 2
    assert not list((tmp_path / "state" / "replay").glob("splunk*")), "what is complete is not remembered"


def test_a_plan_counts_by_type_and_sends_nothing(
    archive: str, splunk: PracticeSplunk, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [archive, *to_splunk(splunk), "--types=grant.*,!grant.revoked", "--plan_only=true"]
    assert run(asked) == 0
    assert splunk.events == []
    kinds = Counter(one.type for one in parse_frames(EVENTS, 0)[0])
    said = capsys.readouterr().out
    assert f"splunk (index main at {splunk.url}): {kinds['grant.created']:,} events" in said
    assert "created 2026-03-01T12:00:00.000Z to 2026-03-01T12:00:00.000Z" in said
    assert "grant.created" in said
    assert "grant.revoked" not in said
    assert "other types" in said
    assert "Nothing was sent" in said


def test_by_id_and_time(archive: str, splunk: PracticeSplunk, tmp_path: Path) -> None:
    events = parse_frames(EVENTS, 0)[0]
    (tmp_path / "ids").write_text("".join(f"{one.id}\n" for one in events[10:20]))
    assert run([archive, *to_splunk(splunk), "--ids=ids", "--since=2026-03-01T12:00:00Z"]) == 0
    assert raws(splunk) == Counter(EVENTS[10:20])
    assert run([archive, *to_splunk(splunk), "--until=2026-03-01T12:00:00Z"]) == 0
    assert len(splunk.events) == 10


def letters(place: Path, *found: DeadLetter) -> str:
    place.mkdir()
    lines = b"".join(encode(letter, 1.0) + b"\n" for letter in found)
    (place / "2026-03-01.ndjson").write_bytes(lines + b'{"destination":"spl')
    return f"--from=dead_letters:{place}"


def refused(number: int, destination: str) -> DeadLetter:
    one = event(number)
    return DeadLetter("write", destination, "invalid_field: x", one.raw, one.id, 1, 5.0)


def test_a_dead_letter_goes_back_to_where_it_came_from(
    splunk: PracticeSplunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = letters(
        tmp_path / "letters",
        refused(1, "splunk"),
        refused(2, "files"),
        refused(1, "splunk"),
        refused(3, "kafka"),
        as_dead_letter(Gap(1.0, 2.0, "cut")),
    )
    assert run([source, *to_splunk(splunk), "--files_dir=copy"]) == 0
    assert raws(splunk) == Counter([event(1).raw])
    assert lines_in_files(tmp_path / "copy") == [event(2).raw]
    said = capsys.readouterr().out
    assert "1 no event: feed_gap" in said
    assert "1 torn last lines" in said
    assert "1 repeats, 1 of files, 1 of kafka" in said
    assert run([source, *to_splunk(splunk), "--to_all=true"]) == 0
    assert raws(splunk) == Counter([event(1).raw, event(1).raw, event(2).raw, event(3).raw])


def test_what_is_refused_again_is_kept_apart_and_the_exit_code_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = b'{"id":"evt_long","type":"t","data":"%s"}' % (b"x" * 5000)
    bad = DeadLetter("write", "splunk", "too_large: x", long, "evt_long", 1, 5.0)
    source = letters(tmp_path / "letters", refused(1, "splunk"), bad)
    with PracticeSplunk(token=TOKEN, max_body=3000) as splunk:
        asked = [source, *to_splunk(splunk), "--dead_letters=letters"]
        assert run(asked) == 1
        assert raws(splunk) == Counter([event(1).raw])
        (kept,) = read_dead_letters(tmp_path / "letters_replay")
        assert (kept.destination, kept.raw) == ("splunk", long)
        assert "Dead letters of this replay: letters_replay" in capsys.readouterr().out


def test_dead_letters_of_a_replay_never_go_into_what_is_read() -> None:
    def kept(place: str, source: str) -> str:
        settings = parse([f"--from={source}", f"--dead_letters={place}", "--files_dir=copy"], {}, PROGRAM)
        return kept_at(settings, source_of(settings))

    Path("letters_replay").mkdir()
    assert kept("letters", "dead_letters:letters_replay") == "letters_replay_replay"
    assert kept("letters_replay", "dead_letters:letters_replay") == "letters_replay_replay"
    assert kept("gs://bucket", "dead_letters:gs://bucket") == "gs://bucket/replay"
    assert kept("s3://bucket/letters/", "dead_letters:s3://bucket/letters") == "s3://bucket/letters_replay"


def stopped(argv: Sequence[str], when: Callable[[], bool]) -> int:
    """Run it, and stop it once `when` holds."""
    stop, ended = threading.Event(), threading.Event()

    def watch() -> None:
        while not (ended.is_set() or when()):
            ended.wait(0.005)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return run(argv, stop)
    finally:
        ended.set()
        watcher.join()


def test_an_interrupted_replay_goes_on_where_it_was(
    archive: str, splunk: PracticeSplunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        archive,
        *to_splunk(splunk),
        "--splunk_max_events=50",
        "--files_dir=copy",
        "--files_max_events=50",
    ]
    assert stopped([*asked, "--max_rate=2000"], lambda: len(splunk.events) >= 300) == 1
    assert "not complete: interrupted. The same command goes on." in capsys.readouterr().out
    assert 300 <= len(splunk.events) < 2500
    assert run(asked) == 0
    assert "sent by an earlier run" in capsys.readouterr().out
    assert raws(splunk) == Counter(EVENTS)
    assert Counter(lines_in_files(tmp_path / "copy")) == Counter(EVENTS)


@pytest.mark.slow
def test_kill_9_repeats_nothing_in_files(archive: str, tmp_path: Path) -> None:
    asked = [archive, "--files_dir=copy", "--files_max_events=70"]
    command = [sys.executable, "-m", "pipelines.replay", *asked, "--max_rate=4000"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while len(list(tmp_path.glob("copy/dt=*/hour=*/*"))) < 3:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    assert len(lines_in_files(tmp_path / "copy")) < 2500
    assert run(asked) == 0
    assert Counter(lines_in_files(tmp_path / "copy")) == Counter(EVENTS)


def test_a_destination_that_fails_leaves_the_others_alone(
    archive: str,
    splunk: PracticeSplunk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bundles, "GIVE_UP_AFTER", 0.5)
    splunk.busy()
    assert run([archive, *to_splunk(splunk), "--files_dir=copy"]) == 1
    assert Counter(lines_in_files(tmp_path / "copy")) == Counter(EVENTS)
    said = capsys.readouterr().out
    assert "not complete: splunk: " in said
    assert "The same command goes on." in said
    splunk.busy(0)
    assert run([archive, *to_splunk(splunk)]) == 0
    assert raws(splunk) == Counter(EVENTS)


def test_what_a_destination_has_a_receipt_for_is_not_sent_again(
    archive: str, splunk: PracticeSplunk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = parse_frames(EVENTS[:300], 0)[0]
    journal = Journal(tmp_path / "state", feed_url="http://feed.test", receipt_retention=3600.0)
    cursor = journal.cursor("splunk")
    journal.append(taken, [])
    batch = Batch(taken[:200], range(200))
    cursor.commit([], [batch])
    cursor.commit([Settlement(batch, batch.offsets, at=time.time())], [])
    asked = [archive, *to_splunk(splunk), "--files_dir=copy"]
    assert run([*asked, "--plan_only=true"]) == 0
    assert "200 have a receipt" in capsys.readouterr().out
    assert run(asked) == 0, "also while the job runs"
    assert raws(splunk) == Counter(EVENTS[200:])
    assert len(lines_in_files(tmp_path / "copy")) == 2500, "that is another destination"
    assert run([*asked[:-1], "--force=true"]) == 0
    assert raws(splunk) == Counter(EVENTS[200:]) + Counter(EVENTS)
    journal.close()
    with sqlite3.connect(tmp_path / "state" / "journal.sqlite3") as file:
        file.execute("PRAGMA user_version = 999")
    assert run(asked) == 2
    assert "--state_dir: its receipts cannot be read" in capsys.readouterr().err


def test_faults_are_told_all_at_once(
    archive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [archive, "--files_dir=archive", "--since=2026-03-02", "--until=2026-03-01", "--to_all=true"]
    assert run([*asked, "--from_region=eu-central-1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["--until", "--to_all", "--from_region"]
    assert run([archive, "--files_dir=archive"]) == 2
    assert "would write into what is read" in capsys.readouterr().err
    assert run(["--files_dir=copy", "--feed_types=grant.created", "--plan=true"]) == 2
    said = capsys.readouterr().err
    assert "--from: is missing" in said
    assert "--feed_types: has no meaning for replay" in said
    assert "did you mean --plan_only?" in said
    (tmp_path / "empty").mkdir()
    assert run(["--from=files:empty", "--files_dir=copy"]) == 2
    assert "nothing is archived under files:empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source", ["files:nowhere", "out", "ftp://x", "bigquery:t", "s3://", "dead_letters:bigquery:p-1.d.t"]
)
def test_what_is_no_source(source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([f"--from={source}", "--files_dir=copy"]) == 2
    assert "--from" in capsys.readouterr().err


def test_help_tells_its_own_flags_first(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.index("--from SOURCE") < said.index("--state_dir") < said.index("--splunk_hec_url")
    assert "--feed_url" not in said
    assert "--demo" not in said


def test_the_jobs_own_environment_is_no_fault(
    archive: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRANTEX_FEED_API_KEY", "env:NOWHERE")
    monkeypatch.setenv("GRANTEX_FEED_TYPES", "grant.created")
    monkeypatch.setenv("GRANTEX_FILES_DIR", "copy")
    assert run([archive]) == 0
    assert len(lines_in_files(tmp_path / "copy")) == 2500
