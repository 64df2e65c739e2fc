"""From elements to keys: what is put together, what never is, and what no event is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import FixedWindows

from tests.transforms.write.manual_clock import ManualClock
from tests.transforms.write.service import Fake, Service, events
from transforms.batch import BatchPolicy
from transforms.dead_letter import DeadLetter
from transforms.event import Chunk, Event
from transforms.window import window_end
from transforms.write.asked import ALL_TYPES, Asked
from transforms.write.keyed.packing import unpack_events
from transforms.write.keyed.shard import ELEMENT_BYTES, PART_EVENTS, TURN_EVENTS, Shard
from transforms.write.keyed.state import PackedEvents, unpack
from transforms.write.metrics import DeliveryCounters

LARGE = BatchPolicy(max_events=500, max_bytes=64_000_000)


def window(second: float) -> Any:
    return FixedWindows(60).assign(FixedWindows.AssignContext(second, element=None)).pop()


def sharded(
    elements: Sequence[tuple[Any, float]],
    shards: int = 2,
    policy: BatchPolicy = LARGE,
    asked: Asked = ALL_TYPES,
) -> list[Any]:
    """One bundle of elements and their times."""
    fake = Fake(Service(), policy)
    object.__setattr__(fake, "asked", asked)
    shard = Shard(fake, "audit", shards, ManualClock())
    shard.setup()
    shard.start_bundle()
    out = [made for element, at in elements for made in shard.process(element, at, window(at))]
    return out + [one.value for one in shard.finish_bundle()]


def elements(made: Sequence[Any]) -> list[tuple[str, PackedEvents, list[Event]]]:
    found = [(key, unpack(PackedEvents, packed)) for key, packed in made]
    return [(key, received, unpack_events(received.bodies)) for key, received in found]


def test_single_events_of_a_bundle_travel_together_within_their_window() -> None:
    new = events(0, 300)
    made = elements(sharded([(one, 10.0 if n < 200 else 70.0) for n, one in enumerate(new)]))
    assert len(made) == 2
    assert {key for key, _, _ in made} <= {"000", "001"}
    assert sorted(one.id for _, _, found in made for one in found) == [one.id for one in new]
    for _, received, found in made:
        assert {int(one.id[4:]) < 200 for one in found} == {received.window_end == 60.0}
    assert all(len(found) > 30 for _, _, found in made)


def test_a_chunk_stays_whole_and_keeps_its_time() -> None:
    chunk = Chunk(events(0, PART_EVENTS), 0, 5.0)
    ((_, received, found),) = elements(sharded([(chunk, 10.0)]))
    assert (received.taken_at, received.window_end) == (5.0, window_end(window(10.0)))
    assert found == list(chunk.events)


def test_a_bundle_has_one_key_and_the_next_bundle_the_next_one() -> None:
    """So that each key has time for its timer while elements come without a pause."""
    shard = Shard(Fake(Service(), LARGE), "audit", 3, ManualClock())
    shard.setup()
    keys = []
    for bundle in range(7):
        shard.start_bundle()
        chunks = [Chunk(events(n * PART_EVENTS, PART_EVENTS)) for n in range(3)]
        made = [one for chunk in chunks for one in shard.process(chunk, 10.0, window(10.0))]
        made += [one.value for one in shard.finish_bundle()]
        (key,) = {key for key, _, _ in elements(made)}
        keys.append(int(key))
        if bundle % 2:  # with nothing in it, nothing changes
            shard.start_bundle()
            assert not list(shard.finish_bundle())
    assert [(each - keys[0]) % 3 for each in keys] == [0, 1, 2, 0, 1, 2, 0]


def test_a_bundle_of_any_size_has_work_for_all_keys() -> None:
    chunks = [Chunk(events(n * PART_EVENTS, PART_EVENTS)) for n in range(4 * TURN_EVENTS // PART_EVENTS)]
    found: Counter[str] = Counter()
    for key, received, _ in elements(sharded([(chunk, 10.0) for chunk in chunks], shards=4)):
        found[key] += received.count
    assert found == dict.fromkeys(("000", "001", "002", "003"), TURN_EVENTS)


def test_no_element_is_larger_than_what_a_cluster_takes() -> None:
    """Neither by a chunk that is added to others, nor by one that is too large as it comes."""
    big = [Event(f"evt_{n}", "t", "", b'{"x":"%s"}' % (b"x" * 5_000_000)) for n in range(10)]
    small = events(0, 3)
    for given in ([Chunk(big)], [Chunk(small), *(Chunk([one]) for one in big)], [*small, *big]):
        made = elements(sharded([(one, 10.0) for one in given], shards=1))
        found = [one for _, _, part in made for one in part]
        assert len(found) == sum(len(one.events) if isinstance(one, Chunk) else 1 for one in given)
        assert max(sum(len(one.raw) for one in part) for _, _, part in made) <= ELEMENT_BYTES


def test_what_is_not_asked_for_never_reaches_a_key_and_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[int] = []
    monkeypatch.setattr(DeliveryCounters, "filtered", lambda self, number: counted.append(number))
    types = ("grant.created", "token.issued")
    mixed = [Event(one.id, types[n % 2], "", one.raw) for n, one in enumerate(events(0, 20))]
    grants, tokens = mixed[::2], mixed[1::2]
    given = [(Chunk(mixed), 10.0), (Chunk(tokens), 10.0), (tokens[0], 10.0)]
    made = elements(sharded(given, asked=Asked(("grant.*",))))
    assert [one for _, _, found in made for one in found] == grants
    assert counted == [0, 10, 10, 1], "first none, so that the counter is known"
    counted.clear()
    everything = elements(sharded([(Chunk(mixed), 10.0)]))
    assert sorted(one.id for _, _, found in everything for one in found) == [one.id for one in mixed]
    assert counted == []


def test_ticks_are_nothing_and_strays_are_dead_letters() -> None:
    made = sharded([(Chunk(), 1.0), (Chunk(flush=True), 1.0), (b"{torn", 1.0)])
    (letter,) = made
    assert isinstance(letter, TaggedOutput)
    assert isinstance(letter.value, DeadLetter)
    assert letter.value.cause.startswith("not_json: ")


def test_what_goes_into_the_shuffle_is_text_and_bytes() -> None:
    hints = Shard(Fake(Service()), "audit", 2).get_type_hints().simple_output_type("Shard")
    assert beam.coders.registry.get_coder(hints).is_deterministic()
