"""Live objects that the copies of a DoFn find again: by a ticket in this process, or one in each process."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PROCESS = uuid.uuid4().hex
_numbers = itertools.count(1)
_lock = threading.Lock()
_tickets: dict[int, Ticket[Any]] = {}
_shared: dict[str, tuple[Any, int]] = {}  # key -> the object and how many use it


class NotHere(LookupError):
    """A ticket was shown in another process than its own, or is void."""


class Ticket(Generic[T]):
    """Stands for a live object. Beam pickles its DoFns, even for a runner in this very process: the pickle
    of a ticket is a number, and whoever unpickles it here holds this ticket again, and the same object.

    In any other process, and once it is void, unpickling raises `elsewhere` (NotHere by default).
    """

    def __init__(self, live: T, elsewhere: Exception | None = None) -> None:
        """elsewhere: travels with the pickle, so it holds nothing that may not."""
        self._live = live
        self._elsewhere = elsewhere or NotHere(
            f"this {type(live).__name__} works only in the process that made it, and as long as that runs it"
        )
        self._number = next(_numbers)
        with _lock:
            _tickets[self._number] = self

    @property
    def live(self) -> T:
        """The object itself. Raises NotHere when the ticket is void."""
        if self._number not in _tickets:
            raise self._elsewhere
        return self._live

    def void(self) -> None:
        """From now on nobody finds the object by it."""
        with _lock:
            _tickets.pop(self._number, None)

    def __reduce__(self) -> tuple[Callable[[str, int, Exception], Ticket[T]], tuple[str, int, Exception]]:
        return _redeem, (_PROCESS, self._number, self._elsewhere)


def _redeem(process: str, number: int, elsewhere: Exception) -> Ticket[Any]:
    found = _tickets.get(number) if process == _PROCESS else None
    if found is None:
        raise elsewhere
    return found


def acquire(key: str, make: Callable[[], T]) -> T:
    """The one object of that key in this process, made now unless it is there; each user `release`s it."""
    with _lock:
        live, users = _shared.get(key) or (make(), 0)
        _shared[key] = (live, users + 1)
    found: T = live
    return found


def release(key: str) -> bool:
    """One user less; True for the last one, who closes the object."""
    with _lock:
        live, users = _shared.pop(key)
        if users > 1:
            _shared[key] = (live, users - 1)
        return users == 1
