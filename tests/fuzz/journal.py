"""Damages a journal at random and looks whether it starts, counts what is lost and repeats nothing.

`make fuzz-journal ARGS="--damages=5000 --kills=300 --seed=1"`. Each damage is a copy of a small journal as
kill -9 leaves one, damaged, then opened and drained. A failure names the seed of that damage alone:
`python -m tests.fuzz.journal --one=SEED`.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import os
import random
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.transforms.feed.journal.support import events, number_of, open_journal, unsealed
from transforms.dead_letter import DeadLetter
from transforms.event import Batch
from transforms.feed.journal import Journal, JournalDamaged, JournalUnavailable
from transforms.feed.journal.database import Database
from transforms.feed.journal.receipts import Receipts
from transforms.write.delivery.ledger import Settlement

PAGE = 4096
DAY = 86_400.0  # for which receipts are kept
SECONDS = 20.0  # for one start; a repair of so small a journal takes a tenth of a second
MOST_STARTS = 3  # a damaged body is found when it is read: one start more, and the repair's own
EXACTLY_ONCE = ("s3", "bigquery")
DATABASE, LOG = "journal.sqlite3", "journal.sqlite3-wal"
POWER_CUT = ("log cut short",)  # takes back the last transactions: no program can tell, the docs say so


class Failure(Exception):
    """What must not happen; the message says what did."""


@dataclass
class Place:
    """A destination's other side: what lies there, by key for those that must not have anything twice."""

    objects: dict[str, set[int]] = field(default_factory=dict)
    events: set[int] = field(default_factory=set)
    twice: set[int] = field(default_factory=set)

    def put(self, batch: Batch) -> None:
        """As S3 with If-None-Match, or BigQuery at an offset: the batch's key is in its memo."""
        if batch.memo is None:
            batch.remember(batch.id.encode())
        assert batch.memo is not None
        numbers = {number_of(event) for event in batch.events}
        stored = self.objects.setdefault(batch.memo.decode(), numbers)
        if stored is numbers:
            self.twice |= numbers & self.events
            self.events |= numbers


@dataclass
class Truth:
    """A journal's files as a killed process left them, and what really happened until then."""

    directory: Path
    places: dict[str, Place]
    born: dict[str, int]
    end: int
    letters: int


def build(directory: Path, seed: int, *, checkpoint: bool) -> Truth:
    """Three destinations at work and one that has not begun, letters, a gap, a backlog."""
    rng = random.Random(seed)
    journal = open_journal(directory / "alive", receipt_retention=DAY)
    journal._kept.block = 100
    journal.check_account("dev_01")
    places = {name: Place() for name in (*EXACTLY_ONCE, "kafka", "idle")}
    for name in places:
        journal.cursor(name, name in EXACTLY_ONCE)
    read = dict.fromkeys(places, 0)
    flying: dict[str, list[Batch]] = {name: [] for name in places}
    for start in range(0, 440, 20):
        letters = [letter(start)] if start % 100 == 0 else []
        journal.append(events(start, start + 20, 20), letters)
        for name in ("s3", "bigquery", "kafka"):
            _work(journal, name, places[name], read, flying[name], rng)
        if start == 200:
            journal.open_gap("cut")
            journal.close_gap()
            journal.trim()
            if checkpoint:
                journal._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    journal.drop_dead_letters(journal.dead_letters()[0][0])
    journal.heard()
    journal._gaps.note_heard()  # a last transaction with nothing in it that a torn log may take
    born = {name: journal.cursors[name].born for name in places}
    copy = directory / "killed"
    copy.mkdir()
    for name in (DATABASE, LOG):
        shutil.copyfile(directory / "alive" / name, copy / name)
    kept = len(journal.dead_letters())
    truth = Truth(copy, places, born, journal.end, kept)
    journal.close()
    return truth


def letter(number: int) -> DeadLetter:
    """One of the feed's own."""
    return DeadLetter("feed", "", f"not_json: frame {number}", b"{%d" % number, at=1.5)


def _work(
    journal: Journal, name: str, place: Place, read: dict[str, int], flying: list[Batch], rng: random.Random
) -> None:
    cursor = journal.cursors[name]
    done = [batch for batch in flying if rng.random() < 0.4]
    flying[:] = [batch for batch in flying if batch not in done]
    for batch in done:
        place.put(batch)
    new: list[Batch] = []
    while read[name] < journal.end and len(flying) + len(new) < 8:
        chunk = journal.read(read[name], 1)[0]
        taken = chunk.events[: rng.randint(5, 20)]
        offsets = range(chunk.first, chunk.first + len(taken))
        read[name] += len(taken)
        parts = 2 if rng.random() < 0.3 and len(taken) > 1 else 1  # then neither batch's offsets are one run
        new += [
            Batch(taken[part::parts], offsets[part::parts], partition=f"hour-{part}") for part in range(parts)
        ]
    cursor.commit([Settlement(batch, batch.offsets, place=place_of(batch)) for batch in done], new)
    flying += new
    if flying and rng.random() < 0.5:  # arrived, and killed before its receipt, unless it is settled later
        place.put(rng.choice(flying))


def place_of(batch: Batch) -> str:
    """What a receipt says of it."""
    return f"{batch.memo!r}"


Damage = Callable[[Path, random.Random], object]


def _file(place: Path, rng: random.Random) -> Path:
    files = [place / name for name in (DATABASE, LOG) if (place / name).stat().st_size]
    return rng.choice(files)


def _overwrite(path: Path, at: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(content)


def _bits(place: Path, rng: random.Random) -> None:
    path = _file(place, rng)
    content = path.read_bytes()
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(content))
        _overwrite(path, at, bytes([content[at] ^ 1 << rng.randrange(8)]))


def _noise(size: int) -> Damage:
    def damage(place: Path, rng: random.Random) -> None:
        path = _file(place, rng)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(max(1, path.stat().st_size - size))
            at -= at % size if size >= 512 else 0
            _overwrite(path, at, rng.randbytes(size) if rng.random() < 0.7 else bytes(size))

    return damage


def _swap(place: Path, rng: random.Random) -> None:
    path = place / DATABASE
    content = path.read_bytes()
    a, b = (rng.randrange(len(content) // PAGE) * PAGE for _ in range(2))
    _overwrite(path, a, content[b : b + PAGE])
    _overwrite(path, b, content[a : a + PAGE])


def _stale(place: Path, rng: random.Random) -> None:
    """A page that was written and is the one before: the disk lied."""
    path = place / LOG
    content = path.read_bytes()
    count = (len(content) - 32) // (PAGE + 24)
    if count > 2:
        a, b = (32 + rng.randrange(count) * (PAGE + 24) for _ in range(2))
        _overwrite(path, a, content[b : b + PAGE + 24])


def _truncate(place: Path, rng: random.Random) -> None:
    path = place / DATABASE
    size = path.stat().st_size
    os.truncate(path, rng.choice([rng.randrange(size), size // PAGE // 2 * PAGE]))


def _cut_log(place: Path, rng: random.Random) -> None:
    path = place / LOG
    os.truncate(path, rng.randrange(path.stat().st_size + 1))


TABLES = (
    *("meta", "chunks", "ids", "cursors", "seals", "gaps", "strays"),
    *("received", "received_ids", "receipts", "troubles"),
)


def _sql(place: Path, rng: random.Random, statement: Callable[[str, str], str]) -> None:
    """SQL where rows are found by their place in the table: the same for all of them."""
    with contextlib.closing(sqlite3.connect(place / DATABASE, isolation_level=None)) as connection:
        table = rng.choice(TABLES)
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        keys = {"seals": 2, "receipts": 3}.get(table, 1)
        rows = connection.execute(f"SELECT {', '.join(columns[:keys])} FROM {table}").fetchall()
        if not rows:
            return
        where = " AND ".join(f"{column} = ?" for column in columns[:keys])
        row = rng.choice(rows)
        with contextlib.suppress(sqlite3.Error, OverflowError):
            connection.execute(f"{statement(table, rng.choice(columns))} WHERE {where}", row)


def _delete_row(place: Path, rng: random.Random) -> None:
    _sql(place, rng, lambda table, _: f"DELETE FROM {table}")


def _alter(place: Path, rng: random.Random) -> None:
    value = rng.choice(["7", "-1", "NULL", "'x'", "x'00ff'", "{c} + 1", "{c} - 1", "9e18", "{c} || 'y'", "0"])
    _sql(place, rng, lambda table, column: f"UPDATE {table} SET {column} = {value.format(c=column)}")


def _alter_schema(place: Path, rng: random.Random) -> None:
    """A letter in the text of the schema, or in the header's numbers."""
    path = place / DATABASE
    content = path.read_bytes()
    begins = [at for at in range(PAGE) if content[at : at + 6] == b"CREATE"]
    if begins and rng.random() < 0.7:
        at = rng.choice(begins) + rng.randrange(160)
        _overwrite(path, at, bytes([rng.choice(b"abcxyz(),_ 0")]))
    else:
        at = rng.choice([n for n in range(16, 96) if not 56 < n < 64])  # a schema of the future is refused
        _overwrite(path, at, rng.randbytes(rng.randint(1, 4)))


def _gone(place: Path, _: random.Random) -> None:
    (place / DATABASE).unlink()


def _twice(place: Path, rng: random.Random) -> None:
    """Two of them at once; SQL first, or SQLite would cut the log short where it is damaged."""
    kinds = rng.sample([kind for kind in DAMAGES if kind not in (*POWER_CUT, "two at once")], 2)
    for kind in sorted(kinds, key=lambda kind: kind not in BY_SQL):
        with contextlib.suppress(sqlite3.Error, OSError, ValueError, IndexError):  # of a file that is gone
            DAMAGES[kind](place, rng)


BY_SQL = ("a row deleted", "a value altered")
DAMAGES: dict[str, Damage] = {
    "bits": _bits,
    "bytes": _noise(16),
    "sectors": _noise(512),
    "pages": _noise(PAGE),
    "pages swapped": _swap,
    "pages of before": _stale,
    "database cut short": _truncate,
    "log cut short": _cut_log,
    "a row deleted": _delete_row,
    "a value altered": _alter,
    "the schema altered": _alter_schema,
    "the database gone": _gone,
    "two at once": _twice,
}


def damaged(truth: Truth, target: Path, rng: random.Random) -> str:
    """A damaged copy in `target`; which damage it was."""
    target.mkdir()
    for path in truth.directory.iterdir():
        shutil.copyfile(path, target / path.name)
    (target / "reserve").write_bytes(b"x")  # 16 MiB would be most of the time
    kind = rng.choice(list(DAMAGES))
    DAMAGES[kind](target, rng)
    return kind


@contextlib.contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """Raises Failure in the body when it takes longer."""

    def hang(*_: object) -> None:
        raise Failure(f"hangs: no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def start_and_drain(directory: Path, truth: Truth, kind: str) -> None:
    """Raises Failure unless it comes up, drains, and the books tell the truth."""
    places = {
        name: Place(dict(place.objects), set(place.events), set(place.twice))
        for name, place in truth.places.items()
    }
    dead: dict[str, set[int]] = {name: set() for name in places}
    seen_letters = 0
    for _ in range(MOST_STARTS):
        with bounded(SECONDS):
            journal = open_journal(directory, receipt_retention=DAY)
            try:
                before = _judge_receipts(directory, truth, places)
                seen_letters += _drain(journal, places, dead)
                break
            except JournalDamaged:
                journal.close()
    else:
        raise Failure("crash loop: damaged again at every start")
    try:
        _judge(journal, truth, places, dead, kind, seen_letters)
        after = _judge_receipts(directory, truth, places)
        if kind not in POWER_CUT and journal.end and max(before, after) > 0:
            raise Failure(f"{before} received events were called not received, then {after}")
        journal.append(events(10**6, 10**6 + 5), [])
    finally:
        journal.close()
    repairs = sum("." not in path.name[8:] for path in directory.glob("journal.damaged-*"))
    if not repairs:
        return
    with bounded(SECONDS):
        open_journal(directory).close()
    again = sum("." not in path.name[8:] for path in directory.glob("journal.damaged-*"))
    if again > repairs or repairs > MOST_STARTS:
        raise Failure(f"repaired {repairs} times, and at the next start {again - repairs} times more")
    if any(directory.glob("journal.salvag*")) or (directory / "journal.suspect").exists():
        raise Failure("a repair's files are left behind")


def _judge_receipts(directory: Path, truth: Truth, places: dict[str, Place]) -> int:
    """How many received events are called not received. Raises Failure for a receipt that claims too much."""
    never = 0
    with contextlib.closing(Receipts(directory)) as receipts:
        for number, found in enumerate(receipts.find(f"evt_{n:08d}" for n in range(truth.end))):
            never += found.received_at is None and not found.expired
            for name, standing in found.destinations.items():
                place = places[name]
                if standing.state != "delivered":
                    continue
                if number not in place.events:
                    raise Failure(f"{name}: a receipt says that {number} is delivered, and it is not")
                key = standing.place[2:-1]
                if standing.place != "None" and number not in place.objects.get(key, ()):
                    raise Failure(f"{name}: a receipt says that {number} lies in {key}, and it does not")
    return never


def _drain(journal: Journal, places: dict[str, Place], dead: dict[str, set[int]]) -> int:
    for name, place in places.items():
        cursor = journal.cursor(name, name in EXACTLY_ONCE)
        recovered = cursor.recover()
        for batch in recovered:
            place.put(batch)
        settled = [Settlement(batch, batch.offsets, place=place_of(batch)) for batch in recovered]
        cursor.commit(settled, [])
        rest = list(unsealed(cursor, journal))
        for start in range(0, len(rest), 200):
            part = rest[start : start + 200]
            batch = Batch([event for _, event in part], [offset for offset, _ in part])
            cursor.commit([], [batch])
            place.put(batch)
            cursor.commit([Settlement(batch, batch.offsets, place=place_of(batch))], [])
        if cursor.pending:
            raise Failure(f"{name}: {cursor.pending} events stay pending")
    count = 0
    while letters := journal.dead_letters():
        for _, found in letters:
            if found.stage == "write":
                dead[found.destination].add(int(found.event_id.removeprefix("evt_")))
            else:
                count += 1
        journal.drop_dead_letters(letters[-1][0])
    return count


def _judge(
    journal: Journal,
    truth: Truth,
    places: dict[str, Place],
    dead: dict[str, set[int]],
    kind: str,
    letters: int,
) -> None:
    repaired = any(path.name.startswith("journal.damaged") for path in journal.directory.iterdir())
    if repaired and not journal.gap_open and not journal.gap_total:
        raise Failure("repaired without a gap on record")
    for name, place in places.items():
        books = journal.books()[name]
        if not books.balanced or min(books.delivered, books.dead_lettered, books.lost) < 0:
            raise Failure(f"{name}: the books do not balance: {books}")
        if kind in POWER_CUT:
            continue
        missing = set(range(truth.born[name], truth.end)) - place.events - dead[name]
        if len(missing) > books.lost and journal.end:
            raise Failure(
                f"{name}: {len(missing)} missing, {books.lost} counted as lost: {sorted(missing)[:9]}"
            )
        if len(missing) > books.lost and not repaired:
            raise Failure("everything is gone without a word")
        if name in EXACTLY_ONCE and place.twice:
            raise Failure(f"{name}: {len(place.twice)} events twice: {sorted(place.twice)[:9]}")
    if letters < truth.letters and kind not in POWER_CUT and journal.end:
        raise Failure(f"{letters} of the feed's {truth.letters} dead letters")


def one(truths: list[Truth], seed: int, *, kill: bool = False) -> str:
    """One damage, by its seed alone; which it was. Raises Failure."""
    rng = random.Random(seed)
    truth = rng.choice(truths)
    with tempfile.TemporaryDirectory(dir=truth.directory.parent) as place:
        directory = Path(place, "journal")
        kind = damaged(truth, directory, rng)
        try:
            if kill:
                for _ in range(rng.randint(1, 3)):
                    _die_in_repair(directory, rng)
            elif rng.random() < 0.05:
                _start_on_a_full_disk(directory, rng)
            start_and_drain(directory, truth, kind)
        except Exception as error:
            raise Failure(f"seed {seed}, {kind}: {error or type(error).__name__}") from error
    return kind


def _in_a_child(what: Callable[[], object]) -> int:
    """The status of a forked process that does it: 0, 1 after an exception, negative when it was killed."""
    child = os.fork()
    if not child:
        status = 1
        try:
            what()
            status = 0
        except JournalUnavailable:
            status = 0
        except BaseException:  # noqa: BLE001 - its own process ends here
            traceback.print_exc()
        finally:
            os._exit(status)
    _, waited = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(waited)


def _die_in_repair(directory: Path, rng: random.Random) -> None:
    """kill -9 before or after one of the steps that leave something on disk."""
    left = rng.randrange(1, 40)

    def counted(call: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return step

    def run() -> None:
        os.replace, os.fsync = counted(os.replace), counted(os.fsync)  # type: ignore[assignment]
        Path.unlink = counted(Path.unlink)  # type: ignore[assignment,method-assign]
        Database.write = counted(Database.write)  # type: ignore[assignment,method-assign]
        open_journal(directory)

    if _in_a_child(run) == 1:
        raise Failure("a start ends in an exception")


def _start_on_a_full_disk(directory: Path, rng: random.Random) -> None:
    """No file may grow beyond some size: what a full disk says, at a random moment of the start."""
    size = rng.randrange(1, 400) * 1024

    def run() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        open_journal(directory)

    if _in_a_child(run) == 1:
        raise Failure("a full disk at the start is no JournalUnavailable")


def make_truths(directory: Path) -> list[Truth]:
    """With all in the log, and with half of it in the database."""
    truths = []
    for number, checkpoint in enumerate([False, True]):
        place = directory / str(number)
        place.mkdir()
        truths.append(build(place, number, checkpoint=checkpoint))
    return truths


def main(argv: list[str] | None = None) -> int:
    """Run as many as asked for and print what became of them; 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--one", type=int, help="the damage with this seed alone")
    parser.add_argument("--kill", action="store_true", help="with --one: killed in its repair")
    options = parser.parse_args(argv)
    logging.disable(logging.CRITICAL if options.one is None else logging.NOTSET)
    began, slowest = time.monotonic(), 0.0
    kinds: collections.Counter[str] = collections.Counter()
    failures: list[str] = []
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        truths = make_truths(Path(place))
        jobs = [(options.seed * 1_000_000 + n, False) for n in range(options.damages)]
        jobs += [(options.seed * 1_000_000 + 500_000 + n, True) for n in range(options.kills)]
        for seed, kill in jobs if options.one is None else [(options.one, options.kill)]:
            started = time.monotonic()
            try:
                kinds[one(truths, seed, kill=kill)] += 1
            except Failure as failure:
                failures.append(f"{failure}{' (--kill)' if kill else ''}")
                print(failures[-1], file=sys.stderr)
                if options.one is not None:
                    traceback.print_exc()
            slowest = max(slowest, time.monotonic() - started)
    print(
        f"{sum(kinds.values())} came up and balance, {len(failures)} did not; "
        f"{time.monotonic() - began:.0f} s, the slowest {slowest:.1f} s; {dict(kinds)}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
