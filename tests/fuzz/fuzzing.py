"""How the fuzzers run: the same few hundred examples among the tests (fifty in `make check`), as many as fit
with `make fuzz`.

`python -m tests.fuzz.fuzzing --seconds=60` runs every `fuzzed` test of the rooms below in turn, with new
examples each time, until the time is over. A failure is printed with its smallest example.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from tests.servers.process import FORBIDDEN

ROOMS = ("test_event_stream", "test_websocket", "test_parse", "test_created_at", "test_settings")
AMONG_THE_TESTS = 50 if FORBIDDEN in os.environ else 300
AT_ONCE = 500  # between two looks at the time

Check = TypeVar("Check", bound=Callable[..., None])


def fuzzed(**examples: SearchStrategy[Any]) -> Callable[[Check], Callable[[], None]]:
    """A test of a check for these examples; `with_new_examples` of it runs it with others."""

    def decorate(check: Check) -> Callable[[], None]:
        common: dict[str, Any] = {
            "deadline": None,
            "database": None,
            "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
        }
        test = settings(max_examples=AMONG_THE_TESTS, derandomize=True, **common)(given(**examples)(check))
        test.with_new_examples = settings(max_examples=AT_ONCE, **common)(given(**examples)(check))  # type: ignore[attr-defined]
        return test

    return decorate


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when nothing was found; what is found is raised."""
    parser = argparse.ArgumentParser(prog="tests.fuzz.fuzzing", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="", help="a part of the name of those to run")
    given = parser.parse_args(arguments)
    rooms = [importlib.import_module(f"tests.fuzz.{name}") for name in ROOMS]
    checks = {
        f"{room.__name__}.{name}": value
        for room in rooms
        for name, value in vars(room).items()
        if hasattr(value, "with_new_examples") and given.only in f"{room.__name__}.{name}"
    }
    until = time.monotonic() + given.seconds
    rounds = dict.fromkeys(checks, 0)
    for name in itertools.cycle(checks):
        if time.monotonic() > until:
            break
        checks[name].with_new_examples()
        rounds[name] += 1
    for name, count in rounds.items():
        print(f"{name}: {count * AT_ONCE:,} examples, nothing found")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
