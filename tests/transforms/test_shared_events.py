"""What is made of a chunk's events once for all destinations is what each would have made for itself."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from itertools import accumulate

import pytest

from transforms.batch import BatchPolicy, OpenBatches
from transforms.event import Batch, Event
from transforms.shared_events import (
    BatchEvents,
    Lines,
    SharedEvents,
    encoded,
    once_for_batch,
    raw_size,
)


def events(start: int, end: int) -> list[Event]:
    dice = random.Random(start)
    return [
        Event(f"evt_{dice.random()}", "t", f"2026-03-01T1{n % 2}:00:00Z", b"%d" % 7**n)
        for n in range(start, end)
    ]


def lines(some: Sequence[Event]) -> Lines:
    made = [b'{"event":%b}\n' % event.raw for event in some]
    return Lines(b"".join(made), list(accumulate(map(len, made))))


def body(some: Sequence[Event]) -> bytes:
    return lines(some).body


def test_what_several_ask_for_at_once_is_made_once() -> None:
    shared = SharedEvents(events(0, 3))
    made: list[int] = []
    all_here = threading.Barrier(5)
    found: list[int] = []

    def make(some: Sequence[Event]) -> int:
        made.append(len(some))
        return len(some)

    def ask() -> None:
        all_here.wait()
        found.append(shared.once("count", make))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found, made) == ([3] * 5, [3])


def test_one_thing_may_be_made_of_another() -> None:
    shared = SharedEvents(events(0, 3))
    assert shared.once("twice", lambda _: 2 * shared.once("count", len)) == 6


def test_what_was_let_go_is_made_anew_and_not_kept() -> None:
    shared = SharedEvents(events(0, 3))
    made = shared.once("raws", lambda some: [event.raw for event in some])
    shared.let_go()
    again = [shared.once("raws", lambda some: [event.raw for event in some]) for _ in range(2)]
    assert again == [made, made]
    assert again[0] is not again[1]


def batch_of(*parts: tuple[SharedEvents | list[Event], int, int]) -> BatchEvents:
    batch = BatchEvents()
    for chunk, start, stop in parts:
        if isinstance(chunk, SharedEvents):
            batch.add(chunk.events, start, stop, chunk)
        else:
            batch.add(chunk, start, stop, None)
    return batch


def is_shared(some: Sequence[Event]) -> bool:
    return isinstance(some, BatchEvents) and any(part.shared for part in some.parts)


@pytest.mark.parametrize("let_go", [False, True])
def test_a_batch_of_parts_is_encoded_sized_and_named_as_its_events(let_go: bool) -> None:
    first, own, second = SharedEvents(events(0, 9)), events(30, 37), SharedEvents(events(9, 20))
    batch = batch_of((first, 4, 9), (own, 0, 3), (own, 5, 7), (second, 0, 1), (second, 1, 11))
    plain = [*first.events[4:], *own[:3], *own[5:], *second.events]
    if let_go:
        encoded(batch, "form", body, lines)
        first.let_go()
    assert is_shared(batch)
    assert batch == plain
    assert encoded(batch, "form", body, lines) == body(plain)
    assert raw_size(batch) == raw_size(plain)
    assert Batch(batch).id == Batch(plain).id


def test_each_form_is_encoded_once_whoever_asks() -> None:
    shared = SharedEvents(events(0, 9))
    calls: list[int] = []

    def counted(some: Sequence[Event]) -> Lines:
        calls.append(len(some))
        return lines(some)

    def counted_body(some: Sequence[Event]) -> bytes:
        return counted(some).body

    one, other = batch_of((shared, 0, 9)), batch_of((shared, 2, 4))
    for form in ("a", "b", "a"):
        encoded(one, form, counted_body, counted)
        encoded(other, form, counted_body, counted)
    assert calls == [9, 9], "whole chunks, once for each form"
    encoded(other, None, counted_body, counted)
    assert calls == [9, 9, 2], "a destination that says nothing of its form makes its own"


def test_what_is_made_of_a_batch_is_made_once_for_all_that_begin_and_end_where_it_does() -> None:
    first, second = SharedEvents(events(0, 9)), SharedEvents(events(9, 20))
    made: list[int] = []

    def make(some: Sequence[Event]) -> int:
        made.append(len(some))
        return sum(some.index(event) for event in some)

    one, same = (batch_of((first, 4, 9), (second, 0, 3)) for _ in range(2))
    others = batch_of((first, 4, 9), (second, 0, 4)), batch_of((first, 3, 9), (second, 0, 3))
    own = batch_of((first, 4, 9), (list(second.events), 0, 3))
    for each in (one, same, *others, one, own, own):
        assert once_for_batch("sum", each, make) == sum(range(len(each)))
    assert made == [8, 9, 9, 8, 8]
    assert once_for_batch("sum", BatchEvents(), make) == 0


def test_nothing_is_shared_for_events_that_are_not_those_of_the_chunk() -> None:
    shared = SharedEvents(events(0, 4))
    batch = batch_of((shared, 0, 4))
    changed = [Event(event.id, event.type, event.created_at, b"{}") for event in batch]
    for some in (changed, batch[1:], [*batch], batch + changed):
        assert not is_shared(some)
        assert encoded(some, "form", body, lines) == body(some)


def sizes(some: Sequence[Event]) -> list[int]:
    return [len(event.raw) for event in some]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("partitioned", [False, True])
def test_batches_are_the_same_ones_with_and_without_sharing(seed: int, partitioned: bool) -> None:
    dice = random.Random(seed)
    policy = BatchPolicy(dice.randint(1, 60), dice.choice([300, 10_000]), 5.0)
    by = (lambda event: event.created_at[11:13]) if partitioned else None
    plain, sharing = OpenBatches(policy, sizes, by), OpenBatches(policy, sizes, by, "form")
    closed: list[list[Batch]] = [[], []]
    start = 0
    while start < 300:
        end = start + dice.randint(1, 50)
        some = events(start, end)
        skip = {n for n in range(start, end) if dice.random() < dice.choice([0, 0.1, 0.9])}
        closed[0] += plain.add_chunk(some, start, 0.0, skip=skip)
        closed[1] += sharing.add_chunk(some, start, 0.0, skip=skip, shared=SharedEvents(some))
        start = end
    closed[0] += plain.flush()
    closed[1] += sharing.flush()

    def seen(batches: Sequence[Batch]) -> list[tuple[object, ...]]:
        return [(list(b.events), list(b.offsets), b.partition, b.id) for b in batches]

    assert seen(closed[0]) == seen(closed[1])


@pytest.mark.parametrize("keeps", [True, False])
def test_a_batch_s_bytes_are_those_of_its_events_whatever_its_destination_counts(keeps: bool) -> None:
    """They bound memory: a destination that sends little of an event holds as much of it as any other."""
    some = events(0, 90)
    shared = SharedEvents(some)
    batches = OpenBatches(BatchPolicy(40, 100_000, 5.0), lambda some: [1 for _ in some], form="form")
    closed = [*batches.add_chunk(some, 0, 0.0, skip=range(20, 30), shared=shared), *batches.flush()]
    if not keeps:
        shared.let_go()
    assert [len(batch.events) for batch in closed] == [40, 40]
    for batch in closed:
        assert raw_size(batch.events) == sum(sizes(batch.events))
        assert raw_size(batch.events[3:9]) == sum(sizes(batch.events[3:9]))


def test_a_batch_does_not_hold_chunks_of_which_it_wants_little() -> None:
    some = events(0, 100)
    batches = OpenBatches(BatchPolicy(1000, 100_000, 5.0), sizes, None, "form")
    batches.add_chunk(some, 0, 0.0, skip=range(10, 100), shared=SharedEvents(some))
    (batch,) = batches.flush()
    assert len(batch.events) == 10
    assert not is_shared(batch.events)
