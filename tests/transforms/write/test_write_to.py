"""WriteTo on Beam's in-process runner."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import apache_beam as beam
import msgspec
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.testing.util import assert_that, equal_to
from apache_beam.transforms.window import FixedWindows, TimestampedValue

from tests.transforms.write.manual_clock import ManualClock
from transforms.batch import BatchPolicy
from transforms.dead_letter import DeadLetter
from transforms.event import Batch, Chunk, Event, Receipt
from transforms.parse import as_chunk
from transforms.secret import LiteralSecret
from transforms.window import Window, window_end
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Outcome, Writer
from transforms.write.delivery.bundles import Deliver, Undelivered
from transforms.write.pseudonyms import pseudonym
from transforms.write.write_to import WriteTo

PATIENCE = 10.0
THREE = BatchPolicy(max_events=3, max_bytes=10_000, max_age=60.0)


class _Seen:
    """What the writers of this process were given; Beam pickles destinations, so it is not theirs."""

    writes: ClassVar[list[Batch]] = []
    failures: ClassVar[int] = 0


@pytest.fixture(autouse=True)
def seen() -> type[_Seen]:
    _Seen.writes, _Seen.failures = [], 0
    return _Seen


class _Writer(Writer):
    """Rejects events whose id begins with "bad"."""

    def write(self, batch: Batch) -> Outcome | None:
        if _Seen.failures:
            _Seen.failures -= 1
            raise ConnectionResetError("reset")
        _Seen.writes.append(batch)
        bad = [i for i, event in enumerate(batch.events) if event.id.startswith("bad")]
        return Outcome(rejected=dict.fromkeys(bad, "bad_event: by its name"))

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class Audit(Destination):
    name = "audit-log"
    policy: BatchPolicy = THREE
    secret: str = "t0ken"
    asked: Asked = asked_for()

    def open(self) -> Writer:
        return _Writer()


def events(first: int, count: int) -> list[Event]:
    return [Event(f"evt_{n:03d}", "t", "", b'{"id":"evt_%03d"}' % n) for n in range(first, first + count)]


def flat(receipts: Sequence[Receipt]) -> list[str]:
    return sorted(event_id for receipt in receipts for event_id in receipt.event_ids)


class _WithWindow(beam.DoFn):
    def process(self, element: Any, window: Any = beam.DoFn.WindowParam) -> Iterator[tuple[str, float]]:
        ids = element.event_ids if isinstance(element, Receipt) else [element.event_id]
        for event_id in ids:
            yield event_id, window_end(window)


def test_on_its_own_it_takes_events_in_any_form_and_keeps_windows_apart(seen: type[_Seen]) -> None:
    elements = [
        (b'{"id":"bytes","type":"t","createdAt":"2026-03-01T12:00:00Z","data":{}}', 10.0),
        ('{"id":"text"}', 10.0),
        ({"id": "dict", "data": {"a": 1}}, 10.0),
        (Event("event", "t", "", b"{}"), 70.0),
        (Chunk(events(0, 4), 0), 70.0),
        (Event("bad", "t", "", b"{}"), 70.0),
        (b'{"type":"no id"}', 10.0),
        (b"{torn", 70.0),
    ]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        source = pipeline | beam.Create(elements) | beam.Map(lambda pair: TimestampedValue(*pair))
        written = source | Window(60) | WriteTo(Audit())
        got = written.delivered | "D" >> beam.ParDo(_WithWindow())
        assert_that(
            got,
            equal_to(
                [("bytes", 60.0), ("text", 60.0), ("dict", 60.0), ("event", 120.0)]
                + [(f"evt_{n:03d}", 120.0) for n in range(4)]
            ),
            "Delivered",
        )
        dead = written.dead_letters | beam.Map(lambda one: (one.event_id, one.cause.split(":")[0], one.raw))
        expected = [
            ("bad", "bad_event", b"{}"),
            ("", "no_id", b'{"type":"no id"}'),
            ("", "not_json", b"{torn"),
        ]
        assert_that(dead, equal_to(expected), "DeadLetters")
    assert all(len(batch.events) <= 3 for batch in seen.writes)
    by_id = {event.id: event for batch in seen.writes for event in batch.events}
    assert by_id["bytes"].raw == elements[0][0]
    assert by_id["bytes"].created_at == "2026-03-01T12:00:00Z"
    assert by_id["dict"].raw == b'{"id":"dict","data":{"a":1}}'
    for batch in seen.writes:
        assert len({event.id in ("bytes", "text", "dict") for event in batch.events}) == 1


def test_what_is_not_asked_for_is_in_neither_output_and_dead_letters_keep_the_original(
    seen: type[_Seen],
) -> None:
    asked = Asked(("g*",), ("data.p",), LiteralSecret("0123456789abcdef"))
    kinds = ((b"good", b"g"), (b"bad", b"g"), (b"not", b"t"))
    elements = [b'{"id":"%b","type":"%b","data":{"p":"x"}}' % each for each in kinds]
    with beam.Pipeline(FnApiRunner()) as pipeline:
        written = pipeline | beam.Create(elements) | WriteTo(Audit(asked=asked))
        assert_that(written.delivered | "I" >> beam.Map(lambda one: one.event_ids), equal_to([["good"]]), "D")
        assert_that(written.dead_letters | beam.Map(lambda one: one.raw), equal_to([elements[1]]), "L")
    sent = [msgspec.json.decode(event.raw) for batch in seen.writes for event in batch.events]
    assert {each["data"]["p"] for each in sent} == {pseudonym(b"0123456789abcdef", b"x")}


def test_a_bundle_larger_than_the_room_goes_through(seen: type[_Seen]) -> None:
    with beam.Pipeline(FnApiRunner()) as pipeline:
        written = pipeline | beam.Create(events(0, 1000)) | WriteTo(Audit())
        total = written.delivered | beam.Map(lambda one: len(one.event_ids)) | beam.CombineGlobally(sum)
        assert_that(total, equal_to([1000]))


def test_counters_carry_the_destinations_name() -> None:
    pipeline = beam.Pipeline(FnApiRunner())
    pipeline | beam.Create([*events(0, 5), Event("bad", "", "", b"{}")]) | WriteTo(Audit())
    result = pipeline.run()
    counters = {one.key.metric.name: one.committed for one in result.metrics().query()["counters"]}
    assert counters["audit-log_events_delivered"] == 5
    assert counters["audit-log_events_dead_lettered"] == 1
    assert counters["audit-log_dead_letters_bad_event"] == 1


def test_an_outage_within_a_bundle_is_retried(seen: type[_Seen]) -> None:
    seen.failures = 1
    deliver = Deliver(Audit())
    deliver.setup()
    deliver.start_bundle()
    assert list(deliver.process(Chunk(events(0, 2)), FixedWindows(60).assign(_context(5)).pop())) == []
    (receipt,) = deliver.finish_bundle()
    assert receipt.value.attempts == 2
    assert receipt.windows[0].end == 60
    deliver.teardown()


def test_an_outage_that_lasts_gives_the_bundle_back_to_the_runner(seen: type[_Seen]) -> None:
    clock = _Hurried()
    deliver = Deliver(Audit(), clock=clock)
    deliver.setup()
    deliver.start_bundle()
    seen.failures = 1_000_000
    list(deliver.process(Chunk(events(0, 2)), FixedWindows(60).assign(_context(5)).pop()))
    with pytest.raises(
        Undelivered, match=r"audit-log: 2 events .* within 300 s: audit-log did not answer; .*reset"
    ):
        list(deliver.finish_bundle())
    seen.failures = 0
    deliver.start_bundle()  # the runner's retry begins without the events of the failed try
    list(deliver.process(Chunk(events(0, 2)), FixedWindows(60).assign(_context(5)).pop()))
    (receipt,) = deliver.finish_bundle()
    assert flat([receipt.value]) == ["evt_000", "evt_001"]
    deliver.teardown()


class _Hurried(ManualClock):
    """The back-off of a writer is over as soon as it begins; the bundle waits for writers alone."""

    def wait(self, event: threading.Event, timeout: float | None) -> bool:
        if timeout is None or not threading.current_thread().name.startswith("writer-"):
            return event.wait(PATIENCE)
        self.advance(timeout)
        return event.is_set()


def _context(timestamp: float) -> Any:
    return FixedWindows.AssignContext(timestamp, element=None)


@dataclass(frozen=True)
class _Unpicklable(Audit):
    def __reduce__(self) -> str:
        raise AssertionError("a destination was pickled")


def on(runner: Any, *flags: str, timers: bool | None = None) -> set[str]:
    """The labels of a graph for this runner."""
    pipeline = beam.Pipeline(runner, PipelineOptions(list(flags)))
    pipeline | beam.Create([Chunk()]) | WriteTo(Audit(), timers=timers)
    labels = {one.unique_name for one in pipeline.to_runner_api().components.transforms.values()}
    return {label.split("/", 1)[1] for label in labels if label.startswith("WriteToAuditLog/")}


def test_state_and_timers_are_for_streaming_pipelines_outside_this_process() -> None:
    in_bundles = {"Deliver"}
    on_timers = {"Shard", "OneWindow", "StraysInOneWindow", "Deliver", "DeadLetters"}
    for runner, flags, expected in [
        (FnApiRunner(), (), in_bundles),
        (FnApiRunner(), ("--streaming",), in_bundles),
        (PortableRunner(), (), in_bundles),
        (PortableRunner(), ("--streaming",), on_timers),
    ]:
        labels = {label.split("/")[0] for label in on(runner, *flags)}
        assert labels == expected, (runner, flags)
    assert {label.split("/")[0] for label in on(PortableRunner(), timers=True)} == on_timers
    assert {label.split("/")[0] for label in on(PortableRunner(), "--streaming", timers=False)} == in_bundles


def test_on_its_own_the_destination_travels_to_the_worker() -> None:
    chunks = beam.Pipeline(FnApiRunner()) | beam.Create([Chunk()])
    with pytest.raises(RuntimeError, match="was pickled"):
        chunks | WriteTo(_Unpicklable())


def test_display_data_holds_no_settings() -> None:
    shown = str(WriteTo(Audit()).display_data())
    assert "audit-log" in shown
    assert "t0ken" not in shown


def test_an_element_of_another_kind_is_a_mistake_in_the_pipeline() -> None:
    with pytest.raises(TypeError, match="audit-log takes Chunk, Event, bytes, str or dict elements, not int"):
        as_chunk(7, "audit-log", 0.0)


@pytest.mark.parametrize("raw", [b'{"id":""}', b'{"id":7}', b"[]", b"null"])
def test_an_event_without_an_id_is_a_dead_letter(raw: bytes) -> None:
    result = as_chunk(raw, "audit-log", 5.0)
    assert isinstance(result, DeadLetter)
    assert result.cause.startswith("no_id: ")
    assert (result.raw, result.at) == (raw, 5.0)


def test_receipts_and_destinations_pickle() -> None:
    receipt = Receipt("audit-log", "b", ["evt_1"], 1)
    assert pickle.loads(pickle.dumps(receipt)) == receipt
    assert pickle.loads(pickle.dumps(Audit())) == Audit()
