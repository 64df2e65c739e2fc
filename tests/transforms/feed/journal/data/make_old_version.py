"""Made `version_1.tar.gz` and `version_2.tar.gz`: journals of older schemas, caught by kill -9 at work.

Kept to say what is in the archives. It ran with the code of each schema and writes the present one's:
`PYTHONPATH=. python tests/transforms/feed/journal/data/make_old_version.py`.
"""

from __future__ import annotations

import random
import tarfile
import tempfile
from dataclasses import asdict
from pathlib import Path

import msgspec

from tests.transforms.feed.journal.random_lane import RandomLane
from tests.transforms.feed.journal.support import copy_files, events, open_journal
from tests.transforms.write.manual_clock import ManualClock
from transforms.dead_letter import DeadLetter
from transforms.feed.journal.schema import VERSION

HERE = Path(__file__).parent


def letter(number: int) -> DeadLetter:
    """A dead letter of the feed."""
    return DeadLetter("feed", "", f"not_json: frame {number}", b"{%d" % number, at=1.5)


def main() -> None:
    """Two lanes at work, one destination that gets nothing, gaps, and letters nobody has written yet."""
    rng = random.Random(11)
    clock = ManualClock()
    with tempfile.TemporaryDirectory() as place:
        journal = open_journal(Path(place, "journal"), clock=clock)
        journal.check_account("dev_01")
        journal.append(events(0, 100), [])
        lanes = {name: RandomLane(journal, name, rng) for name in ("s3", "kafka")}
        idle = journal.cursor("idle")
        for start in range(100, 3000, 100):
            clock.advance(1)
            payload = 12 if start % 500 else b""
            journal.append(events(start, start + 100, payload), [letter(start)] if start % 700 == 0 else [])
            for lane in lanes.values():
                lane.truth.end = journal.end
                for _ in range(4):
                    lane.step()
            if start == 2400:
                journal._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
            if start in (1000, 2000):
                journal.open_gap(f"cut at {start}")
                clock.advance(10)
                journal.close_gap()
        journal.drop_dead_letters(journal.dead_letters()[0][0])
        journal.open_gap("cut at the end")
        copy_files(Path(place, "journal"), Path(place, "copy"))
        truth = {
            "end": journal.end,
            "now": clock.now(),
            "idle": [idle.born, idle.pending],
            "letters": [msgspec.msgpack.encode(found) for _, found in journal.dead_letters()],
            "gaps": [asdict(gap) for gap in journal.gaps()],
            "lanes": {name: asdict(lane.truth) for name, lane in lanes.items()},
        }
        Path(place, "copy", "truth.json").write_bytes(msgspec.json.encode(truth))
        with tarfile.open(HERE / f"version_{VERSION}.tar.gz", "w:gz") as archive:
            archive.add(Path(place, "copy"), f"version_{VERSION}")
        journal.close()


if __name__ == "__main__":
    main()
