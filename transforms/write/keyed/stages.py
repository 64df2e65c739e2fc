"""The Beam stage of a delivery on a cluster: the keys' state and timers."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.timeutil import TimeDomain
from apache_beam.transforms.userstate import BagStateSpec, ReadModifyWriteStateSpec, TimerSpec, on_timer

from transforms.allocator import collect_seldom, share_one_arena
from transforms.answer_first import answer_first
from transforms.clock import Clock, SystemClock
from transforms.dead_letter import DeadLetter
from transforms.in_process import acquire, release
from transforms.refuse_splits import refuse_splits
from transforms.seldom_progress import tell_progress_seldom
from transforms.write.contract import Destination
from transforms.write.delivery.settling import DEAD_LETTERS
from transforms.write.keyed.attempts import Attempts, DrainTime
from transforms.write.keyed.cells import in_order, make_when_used, with_cells
from transforms.write.keyed.delivery import KeyedDelivery
from transforms.write.keyed.firing import Budget, Result
from transforms.write.keyed.state import BeamState
from transforms.write.metrics import DeliveryCounters

CLOSE_SECONDS = 5.0


@beam.typehints.with_input_types(tuple[str, bytes])
class DeliverOnTimers(beam.DoFn):
    """Delivers what its keys are given; no bundle waits for a destination. See KeyedDelivery.

    In the global window, so that a key has one state and one circuit whatever the windows of its events are;
    the timer at the global window's end is what a drain sets off.
    """

    KEY_STATE = ReadModifyWriteStateSpec("book", BytesCoder())
    INBOX = BagStateSpec("inbox", BytesCoder())
    DUE = TimerSpec("due", TimeDomain.REAL_TIME)
    END = TimerSpec("end", TimeDomain.WATERMARK)

    def __init__(
        self,
        destination: Destination,
        name: str,
        shared: str,
        dead_letter_limit: int | None = None,
        drain: DrainTime = DrainTime(),  # noqa: B008 - frozen
        clock: Clock | None = None,
    ) -> None:
        self._destination, self._name, self._shared = destination, name, shared
        self._limit, self._drain = dead_letter_limit, drain
        self._clock = clock or SystemClock()

    def setup(self) -> None:
        share_one_arena()
        collect_seldom()
        refuse_splits()
        tell_progress_seldom()
        make_when_used()
        answer_first()
        self._counters = DeliveryCounters(self._name)
        self._attempts = acquire(self._shared, self._new_attempts)
        self._delivery = KeyedDelivery(
            self._destination, self._name, self._attempts, self._counters, self._clock
        )

    def start_bundle(self) -> None:
        self._budget = Budget()
        self._counters.declare()

    def teardown(self) -> None:
        if release(self._shared):
            self._attempts.close(CLOSE_SECONDS)

    @with_cells
    def process(
        self,
        element: tuple[str, bytes],
        window: Any = beam.DoFn.WindowParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        due: Any = beam.DoFn.TimerParam(DUE),
        end: Any = beam.DoFn.TimerParam(END),
        *cells: Any,
    ) -> None:
        if self._delivery.receive(*element, BeamState(key_state, inbox, cells), due.set):
            end.set(window.max_timestamp())

    @on_timer(DUE)  # type: ignore[untyped-decorator]
    @with_cells
    def on_due(
        self,
        key: Any = beam.DoFn.KeyParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        due: Any = beam.DoFn.TimerParam(DUE),
        **cells: Any,
    ) -> Iterator[Any]:
        beam_state = BeamState(key_state, inbox, in_order(cells))
        yield from self._outputs(self._delivery.due(key, beam_state, due.set, self._budget))

    @on_timer(END)  # type: ignore[untyped-decorator]
    @with_cells
    def on_end(
        self,
        key: Any = beam.DoFn.KeyParam,
        window: Any = beam.DoFn.WindowParam,
        key_state: Any = beam.DoFn.StateParam(KEY_STATE),
        inbox: Any = beam.DoFn.StateParam(INBOX),
        due: Any = beam.DoFn.TimerParam(DUE),
        end: Any = beam.DoFn.TimerParam(END),
        **cells: Any,
    ) -> Iterator[Any]:
        beam_state = BeamState(key_state, inbox, in_order(cells))
        again = functools.partial(end.set, window.max_timestamp())
        yield from self._outputs(self._delivery.end(key, beam_state, again, self._budget))
        due.clear()

    def _new_attempts(self) -> Attempts:
        return Attempts(self._destination, self._name, self._clock, self._limit, self._drain)

    def _outputs(self, results: Iterator[Result]) -> Iterator[Any]:
        for result in results:
            self._counters.count(result)
            yield TaggedOutput(DEAD_LETTERS, result) if isinstance(result, DeadLetter) else result
