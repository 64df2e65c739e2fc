"""The cells of a key's state: all of them are declared to Beam, and only those are made that somebody uses.

Beam makes what stands for each declared state whenever a timer fires: 1.1 ms of CPU for those of one key,
of which most firings use none. So a cell is first a stand-in, in Beam's versions where that is known.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import apache_beam as beam
from apache_beam.coders import BytesCoder
from apache_beam.transforms.userstate import BagStateSpec

from transforms.beam_internals import wrap
from transforms.write.keyed.backlog import CELLS
from transforms.write.keyed.state import Bag


class CellSpec(BagStateSpec):
    """To Beam a bag of bytes as any other."""


CELL = tuple(CellSpec(f"cell_{number}", BytesCoder()) for number in range(CELLS))


def with_cells(method: Callable[..., Any]) -> Callable[..., Any]:
    """`method` as Beam is to see it: in place of `**cells` a parameter for each, as it knows state by those
    alone. Elements are given to `process` by place: there it is `*cells`."""
    *given, _ = inspect.signature(method).parameters.values()
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    cells = [inspect.Parameter(spec.name, kind, default=beam.DoFn.StateParam(spec)) for spec in CELL]
    method.__signature__ = inspect.Signature([*given, *cells])  # type: ignore[attr-defined]
    return method


def in_order(cells: Mapping[str, Any]) -> list[Bag]:
    """The cells that such a method was given, by their numbers."""
    return [cells[spec.name] for spec in CELL]


class Cell:
    """Stands for a cell until somebody uses it."""

    __slots__ = ("_get", "_of")

    def __init__(self, get: Callable[..., Bag], of: tuple[Any, ...]) -> None:
        """get: given `of`, gives the cell, the same one however often it is asked."""
        self._get, self._of = get, of

    def read(self) -> Iterable[bytes]:
        return self._get(*self._of).read()

    def add(self, value: bytes) -> None:
        self._get(*self._of).add(value)

    def clear(self) -> None:
        self._get(*self._of).clear()


def make_when_used() -> bool:
    """Do so in this process from now on; False in a version where that is not known."""
    # Here, because only a worker has it at hand.
    from apache_beam.runners.worker.bundle_processor import FnApiUserStateContext

    return wrap(FnApiUserStateContext, "get_state", when_used)


def when_used(get_state: Any) -> Any:
    """`get_state`, but a cell is made by who uses it. It is kept, and committed with its bundle, as ever."""

    @functools.wraps(get_state)
    def asked(context: Any, spec: Any, key: Any, window: Any) -> Any:
        if spec.__class__ is CellSpec:
            return Cell(get_state, (context, spec, key, window))
        return get_state(context, spec, key, window)

    return asked
