"""Two tiers of tests, and how several workers share a machine: decided by what a test uses, at collection.

`--without-servers` (`make check`) leaves out every test that starts a real server: those below DIRECTORIES,
those with a fixture of `tests.servers`, and those marked `servers`, which start one themselves, or
`own_network`. Whatever starts one nevertheless fails (`process.may_start`), so that no mark can be forgotten.

It leaves out those marked `slow`, too: a hundredth of all tests that take half of the time. Each starts an
interpreter, which imports for seconds (whoever does so without the mark fails), runs a whole pipeline, or
tries hundreds of random cases, of which the first few seeds have no mark.

A test with real servers that fails is run once more, and the report names it (RERUN): on a busy machine one
of seven thousand loses a race with a process that it watches, now and then. That is a fault of the test, to
be mended; it is not one of the change that was to be tested. All others have one try.

With pytest-xdist, tests that share a server or a module's fixture stay on one worker, where it is started
once; a test marked `alone`, which measures time, has the machine to itself. These follow one another, so that
the others wait for the machine once, and come late, when types are checked (Makefile).
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import os
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.servers.process import FORBIDDEN

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

TESTS = Path(__file__).parents[1]
OPTION = "--without-servers"
DIRECTORIES = tuple(TESTS / name for name in ("browser", "conformance", "flink", "integration"))
# A test with several of them stays with the first, whose start takes longest, and starts the others anew.
SHARED = ("broker", "emulator", "seaweedfs", "moto_server", "pubsub_server")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(OPTION, action="store_true", help="only tests that start no real server and no cluster")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "servers: it starts a real server without a fixture of ours")
    config.addinivalue_line("markers", "alone: it measures time, so nothing else runs beside it")
    config.addinivalue_line("markers", "slow: more than a second of CPU; not in `make check`")
    if config.getoption(OPTION):
        os.environ[FORBIDDEN] = "1"
        if not config.getoption("numprocesses", None):  # who has workers starts those
            sys.addaudithook(_start_no_interpreter)


def _start_no_interpreter(event: str, about: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen" and os.environ.get(FORBIDDEN):
        words = about[1] if isinstance(about[1], (list, tuple)) else [about[1]]
        assert os.fspath(words[0]) != sys.executable, "a new interpreter takes seconds: pytest.mark.slow"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Not even imported."""
    return True if config.getoption(OPTION) and collection_path in DIRECTORIES else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption(OPTION):
        left_out = [item for item in items if starts_servers(item) or item.get_closest_marker("slow")]
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)
    for item in items:
        if starts_servers(item):
            item.add_marker(pytest.mark.flaky(reruns=1))
    if not hasattr(config, "workerinput"):
        return
    items.sort(key=is_alone)
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        place = _place(config)
        (place / "groups.new").write_text(json.dumps({item.nodeid: shares(item) for item in items}))
        (place / "groups.new").rename(place / "groups")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
    return Together(config, log) if config.getoption("dist") == "loadgroup" else None


class Together(LoadScopeScheduling):  # type: ignore[misc]  # pytest-xdist is not annotated everywhere
    """Gives tests of one group to one worker, the largest groups first. pytest-xdist's own --dist=loadgroup
    (3.8) finds groups in ids that pytest 9.2 no longer lets it change."""

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """By test. The first worker wrote it, and work is given out when all have collected."""
        found: dict[str, str] = json.loads((_place(self.config) / "groups").read_text())
        return found

    def _split_scope(self, nodeid: str) -> str:
        return self.groups.get(nodeid) or nodeid


def _place(config: pytest.Config) -> Path:
    """A directory that all workers of this run and their controller have in common."""
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return base.parent if hasattr(config, "workerinput") else base


def first(count: int, seeds: Iterable[int]) -> list[ParameterSet | int]:
    """The seeds of a random test, of which the first `count` are run by `make check`, too."""
    slow = pytest.mark.slow
    return [n if i < count else pytest.param(n, marks=slow) for i, n in enumerate(seeds)]


def starts_servers(item: pytest.Item) -> bool:
    """Whether a real server belongs to what this test uses."""
    if any(item.get_closest_marker(name) for name in ("servers", "own_network")):
        return True
    if _below_directories(item.path.parent):
        return True
    return any(one.func.__module__.startswith("tests.servers.") for one in _fixtures(item))


@functools.cache
def _below_directories(place: Path) -> bool:
    return any(directory in (place, *place.parents) for directory in DIRECTORIES)


def is_alone(item: pytest.Item | None) -> bool:
    return item is not None and item.get_closest_marker("alone") is not None


def shares(item: pytest.Item) -> str:
    """The name of what this test has in common with others that should be on the same worker, or ""."""
    if is_alone(item):
        return SHARED[0]
    marker = item.get_closest_marker("xdist_group")
    if marker is not None:
        return str(marker.args[0])
    fixtures = _fixtures(item)
    servers = {one.argname for one in fixtures}.intersection(SHARED)
    if servers:
        return min(servers, key=SHARED.index)
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        return "hypothesis"  # whose table of characters takes seconds to make, in each process of a new clone
    return item.path.stem if any(one.scope == "module" for one in fixtures) else ""


def _fixtures(item: pytest.Item) -> list[pytest.FixtureDef[object]]:
    info = getattr(item, "_fixtureinfo", None)
    return [found[-1] for found in info.name2fixturedefs.values()] if info else []


_turn: contextlib.ExitStack | None = None  # while the machine is this worker's, or it is one of several


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    global _turn
    if not hasattr(item.config, "workerinput"):
        return (yield)
    if _turn is None:
        _turn = contextlib.ExitStack()
        _turn.enter_context(share(_place(item.config), fcntl.LOCK_EX if is_alone(item) else fcntl.LOCK_SH))
    try:
        return (yield)
    finally:
        if not (is_alone(item) and is_alone(nextitem)):
            _turn.close()
            _turn = None


@contextlib.contextmanager
def share(place: Path, kind: int) -> Iterator[None]:
    """The machine, with the other workers (LOCK_SH) or without them (LOCK_EX). Whoever waits for it holds the
    door, so that nobody else comes in before."""
    with (place / "machine").open("w") as machine:
        with (place / "door").open("w") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(machine, kind)
        yield
