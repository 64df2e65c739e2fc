"""What the destinations share whose requests go through a proxy, which does what goes wrong on the way."""

from __future__ import annotations

from typing import Protocol

from tests.conformance.case import Case, When


class FaultProxy(Protocol):
    """What a proxy does on command; see `Case`."""

    def calm(self) -> None: ...
    def hang(self) -> None: ...
    def swallow(self) -> None: ...
    def slow(self, seconds: float) -> None: ...
    def reset(self, when: When) -> None: ...
    def cut_answer(self) -> None: ...
    def down(self) -> None: ...
    def up(self) -> None: ...


class BehindProxy(Case):
    """The proxy is open as long as the case is in use."""

    def __init__(self, on_the_way: FaultProxy) -> None:
        self._on_the_way = on_the_way

    def calm(self) -> None:
        self._on_the_way.calm()

    def hang(self) -> None:
        self._on_the_way.hang()

    def swallow(self) -> None:
        self._on_the_way.swallow()

    def slow(self, seconds: float) -> None:
        self._on_the_way.slow(seconds)

    def reset(self, when: When) -> None:
        self._on_the_way.reset(when)

    def truncate(self) -> None:
        self._on_the_way.cut_answer()

    def down(self) -> None:
        self._on_the_way.down()

    def up(self) -> None:
        self._on_the_way.up()
