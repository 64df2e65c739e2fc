"""kill -9 of a real process that appends and delivers: whatever it said it had taken is there."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transforms.feed.journal.support import FEED, number_of, open_journal, read_all, unsealed
from transforms.feed.journal.receipts import Receipts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]

# Prints "taken END" once `append` has returned, "settled NUMBER" once a receipt is committed.
PROGRAM = f"""
import sys
from pathlib import Path
import pytest

from tests.transforms.feed.journal.support import events
from transforms.event import Batch
from transforms.feed.journal import Journal
from transforms.write.delivery.ledger import Settlement

journal = Journal(Path(sys.argv[1]), feed_url={FEED!r}, receipt_retention=86_400.0)
keeps, delivers = journal.cursor("keeps"), journal.cursor("delivers")
flying = delivers.recover()
print("ready", flush=True)
while True:
    start = journal.end
    journal.append(events(start, start + 37), [])
    print("taken", journal.end, flush=True)
    batch = Batch(events(start, start + 37), range(start, start + 37))
    delivers.commit([], [batch])
    flying.insert(0, batch)
    if len(flying) > 5:
        done = flying.pop()
        delivers.commit([Settlement(done, done.offsets, place=f"from {{done.offsets[0]}}")], [])
        for offset in done.offsets:
            print("settled", offset)
        sys.stdout.flush()
    journal.trim()
"""


def run_and_kill(directory: Path, after_lines: int) -> list[str]:
    """Everything the process said before it was killed, in the middle of whatever it did then."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(after_lines)]
        process.kill()
        lines += process.stdout.readlines()
    assert process.returncode == -9
    return [line for line in lines if line.endswith("\n")]


def test_what_was_accepted_before_kill_9_is_there_after_each_of_three(tmp_path: Path) -> None:
    settled: set[int] = set()
    for after_lines in (300, 1001, 555):
        words = [line.split() for line in run_and_kill(tmp_path, after_lines)]
        taken = max(int(word[1]) for word in words if word[0] == "taken")
        settled |= {int(word[1]) for word in words if word[0] == "settled"}

        journal = open_journal(tmp_path, receipt_retention=86_400.0)
        assert journal.end >= taken
        assert [number_of(found) for found in read_all(journal)] == list(range(journal.end))
        assert all(books.balanced for books in journal.books().values())
        cursor = journal.cursors["delivers"]
        again = [number_of(found) for batch in cursor.recover() for found in batch.events]
        again += [offset for offset, _ in unsealed(cursor, journal)]
        assert len(again) == len(set(again)) == cursor.pending
        assert not settled & set(again)
        with contextlib.closing(Receipts(tmp_path)) as receipts:
            found = list(receipts.find(f"evt_{number:08d}" for number in range(journal.end + 1)))
        assert found.pop().received_at is None
        for number, each in enumerate(found):
            state = each.destinations["delivers"].state
            assert state == ("pending" if number in again else "delivered")
            assert each.destinations["delivers"].place in ("", f"from {number // 37 * 37}")
        assert not list(tmp_path.glob("journal.damaged*"))
        journal.close()
