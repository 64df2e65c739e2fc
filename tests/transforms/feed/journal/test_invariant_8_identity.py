"""One journal, one feed, one account, one process; destinations come and go by name."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import FEED, events, open_journal, read_all
from transforms.event import Batch
from transforms.feed.intake import JournalFull
from transforms.feed.journal import JournalError
from transforms.write.delivery.ledger import Settlement

ROOT = Path(__file__).parents[4]


def in_another_process(program: str, directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(directory)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_another_feed_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    with pytest.raises(
        JournalError, match=r"another feed \(https://feed\.test\).*https://other\.test.*state_dir"
    ):
        open_journal(tmp_path, feed_url="https://other.test")
    open_journal(tmp_path).close()  # and the directory is free again


def test_another_account_is_refused_after_a_restart_too(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.check_account("dev_1")
    journal.check_account("dev_1")
    journal.close()

    journal = open_journal(tmp_path)
    with pytest.raises(JournalError, match=r"another account \(dev_1\).*dev_2.*--state_dir"):
        journal.check_account("dev_2")
    journal.check_account("dev_1")
    journal.close()


def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    with sqlite3.connect(tmp_path / "journal.sqlite3") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=r"another version.*schema 99.*--state_dir"):
        open_journal(tmp_path)
    assert [path.name for path in tmp_path.glob("journal.damaged*")] == []
    with sqlite3.connect(tmp_path / "journal.sqlite3") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)


HOLD = f"""
import sys
from pathlib import Path
from transforms.feed.journal import Journal
journal = Journal(Path(sys.argv[1]), feed_url={FEED!r})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone_even_by_kill(tmp_path: Path) -> None:
    with in_another_process(HOLD, tmp_path) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == "held\n"
            with pytest.raises(
                JournalError, match=rf"in use by another grantex-beam \(process {other.pid}\)"
            ):
                open_journal(tmp_path)
        finally:
            other.kill()
            other.wait(10)
    open_journal(tmp_path).close()


def test_a_directory_that_cannot_be_written_is_a_bad_parameter(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # what root, too, cannot write
    with pytest.raises(JournalError, match=r"cannot write in .*choose another --state_dir"):
        open_journal(tmp_path)


def test_a_state_dir_that_is_a_file_is_a_bad_parameter(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(JournalError, match="choose another --state_dir"):
        open_journal(tmp_path / "state")


def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "state")
    assert (tmp_path / "state").stat().st_mode & 0o077 == 0
    journal.close()


def test_a_new_destination_starts_at_the_end(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.cursor("old")
    journal.append(events(0, 10), [])
    new = journal.cursor("new")
    journal.append(events(10, 12), [])
    assert (new.born, new.pending, journal.books()["new"].received) == (10, 2, 2)
    assert [taken.id for taken in read_all(journal, new.position)] == [taken.id for taken in events(10, 12)]
    journal.close()


def test_a_removed_destination_holds_its_events_until_it_is_forgotten(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    removed, stays = journal.cursor("removed"), journal.cursor("stays")
    journal.append(events(0, 10), [])
    removed.commit((), [Batch(events(0, 10), range(10))])
    journal.close()

    journal = open_journal(tmp_path)
    stays = journal.cursor("stays")
    batch = Batch(events(0, 10), range(10))
    stays.commit((), [batch])
    stays.commit([Settlement(batch, batch.offsets)], ())
    journal.trim()
    assert (journal.books()["removed"].pending, len(read_all(journal))) == (10, 10)
    assert journal.forget("removed")
    assert not journal.forget("removed")
    journal.trim()
    assert (list(journal.books()), journal.bytes) == (["stays"], 0)
    journal.close()

    journal = open_journal(tmp_path)
    born_again = journal.cursor("removed")
    assert (born_again.born, born_again.recover()) == (10, [])
    journal.close()


def test_past_its_bound_the_journal_is_full_until_events_are_delivered(tmp_path: Path) -> None:
    journal = open_journal(tmp_path, max_bytes=len(events(0, 1)[0].raw) * 10)
    cursor = journal.cursor("kafka")
    journal.append(events(0, 10), [])
    with pytest.raises(JournalFull, match="--journal_max_bytes"):
        journal.append(events(10, 11), [])
    assert journal.end == 10
    cursor.advance(10)
    journal.trim()
    assert len(journal.append(events(10, 11), [])) == 1
    journal.close()
