"""A cell of state is made when it is used, and then it is Beam's own."""

from __future__ import annotations

from typing import Any

from apache_beam.coders import BytesCoder, StrUtf8Coder, coders
from apache_beam.runners.worker.bundle_processor import FnApiUserStateContext
from apache_beam.transforms.userstate import BagStateSpec
from apache_beam.transforms.window import GlobalWindow

from transforms.write.keyed.cells import CELL, Cell, when_used

OTHER = BagStateSpec("inbox", BytesCoder())


class Handler:
    """What is committed, by name of the state."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def clear(self, key: Any) -> None:
        self.done.append(("clear", key.bag_user_state.user_state_id))

    def extend(self, key: Any, coder: Any, elements: Any) -> None:
        self.done.append((b",".join(elements).decode(), key.bag_user_state.user_state_id))


def test_only_what_is_used_is_made_and_it_is_committed() -> None:
    handler = Handler()
    context = FnApiUserStateContext(handler, "deliver", StrUtf8Coder(), coders.GlobalWindowCoder())
    get_state = when_used(
        getattr(FnApiUserStateContext.get_state, "__wrapped__", context.__class__.get_state)
    )

    def cell(number: int, key: str) -> Any:
        return get_state(context, CELL[number], key, GlobalWindow())

    given = {(number, key): cell(number, key) for number in range(len(CELL)) for key in ("000", "001")}
    assert all(isinstance(each, Cell) for each in given.values())
    assert not context._all_states
    given[3, "001"].add(b"one")
    given[3, "001"].add(b"two")
    given[7, "000"].clear()
    assert len(context._all_states) == 2
    cell(3, "001").add(b"three")  # by a later element of the same bundle
    assert get_state(context, OTHER, "000", GlobalWindow()).__class__ is not Cell
    context.commit()
    assert handler.done == [("one,two,three", "cell_3"), ("clear", "cell_7")]
