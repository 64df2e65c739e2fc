"""What `make check` leaves out, and that nothing in it can start a server; how workers share a machine."""

from __future__ import annotations

import fcntl
import os
import re
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.servers import tiers
from tests.servers.process import FORBIDDEN, ServerProcess, may_start

ROOT = Path(__file__).parents[2]
# Tests that say in their names what `make check` does with them.
EXAMPLES = """
import subprocess
import sys
import pytest
from tests.servers.process import ServerProcess

def test_stays(tmp_path):
    pass

def test_left_out_for_its_fixture(seaweedfs):
    raise NotImplementedError

def test_left_out_for_the_fixture_of_its_fixture(bucket):
    raise NotImplementedError

@pytest.fixture
def bucket(seaweedfs):
    return "bucket"

@pytest.mark.servers
def test_left_out_for_its_mark():
    raise NotImplementedError

@pytest.mark.own_network(needs=lambda: None)
def test_left_out_for_its_network():
    raise NotImplementedError

@pytest.mark.slow
def test_left_out_for_it_is_slow():
    raise NotImplementedError

def test_fails_because_nobody_marked_it(tmp_path):
    ServerProcess([sys.executable, "-c", ""], tmp_path / "log").stop()

def test_fails_because_an_interpreter_is_slow():
    subprocess.run([sys.executable, "-c", ""])
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in a process of its own, with the plugins of this suite."""
    plugins = [f"-ptests.servers.{name}" for name in ("tiers", "own_network", "shared")]
    return pytester.runpytest_subprocess(*plugins, "-pno:hypothesispytest", *arguments)


@pytest.fixture
def examples(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(FORBIDDEN, raising=False)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    pytester.makepyfile(EXAMPLES)
    return pytester


@pytest.mark.slow
def test_without_servers_only_what_starts_none_is_left_and_who_starts_one_fails(
    examples: pytest.Pytester,
) -> None:
    result = run(examples, tiers.OPTION, "-rA")
    result.assert_outcomes(passed=1, failed=2, deselected=5)
    result.stdout.fnmatch_lines_random(["PASSED *test_stays", "FAILED *test_fails_because_nobody_marked_it*"])
    result.stdout.fnmatch_lines(["*is a real server, and `make check` starts none*"])
    result.stdout.fnmatch_lines(["*a new interpreter takes seconds: pytest.mark.slow*"])


@pytest.mark.slow
def test_with_servers_it_may_start_one(examples: pytest.Pytester) -> None:
    run(examples, "-k", "nobody_marked_it").assert_outcomes(passed=1, deselected=7)


def test_this_suite_s_own_tests_with_servers_are_known(request: pytest.FixtureRequest) -> None:
    """Whatever of this run starts one is left out by `make check`, by its directory if by nothing else."""
    here = [item for item in request.session.items if not tiers.starts_servers(item)]
    outside = [item for item in here if any(one in item.path.parents for one in tiers.DIRECTORIES)]
    assert outside == []
    assert request.node in here


def test_nothing_starts_where_none_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FORBIDDEN, "1")
    with pytest.raises(AssertionError, match="is a real server"):
        ServerProcess([sys.executable, "-c", ""], tmp_path / "log")
    assert not (tmp_path / "log").exists()
    monkeypatch.delenv(FORBIDDEN)
    may_start("a server")


GROUPS = """
import os
import pytest

@pytest.fixture(scope="module")
def dear():
    return object()

def test_both(seaweedfs, broker): pass
def test_one(seaweedfs): pass

@pytest.mark.parametrize("number", range(6))
def test_each(number):
    print("each", os.environ["PYTEST_XDIST_WORKER"])

@pytest.mark.parametrize("number", range(6))
def test_module(number, dear):
    print("module", os.environ["PYTEST_XDIST_WORKER"])

@pytest.mark.parametrize("number", range(6))
@pytest.mark.xdist_group("test_groups")
def test_mark(number):
    print("mark", os.environ["PYTEST_XDIST_WORKER"])
"""


@pytest.mark.slow
def test_who_shares_a_server_or_a_module_s_fixture_shares_a_worker(examples: pytest.Pytester) -> None:
    examples.makepyfile(test_groups=GROUPS)
    result = run(examples, "-n2", "--dist=loadgroup", "-rP", "-k", "test_each or test_module or test_mark")
    result.assert_outcomes(passed=18)
    ran = Counter(tuple(line.split()) for line in result.outlines if re.fullmatch(r"\w+ gw\d", line))
    (together,) = {worker for kind, worker in ran if kind != "each"}
    assert (ran["module", together], ran["mark", together]) == (6, 6)
    assert {worker for kind, worker in ran if kind == "each"} - {together}, "both had something to do"


ALONE = """
import os
import time
import pytest

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    print("alone", os.environ["PYTEST_XDIST_WORKER"], time.monotonic())

@pytest.mark.parametrize("number", range(20))
def test_beside(number):
    print("beside", os.environ["PYTEST_XDIST_WORKER"], time.monotonic())

def test_with_a_server(broker): pass
"""


@pytest.mark.slow
def test_who_is_alone_follows_who_is_alone_and_nobody_comes_between(examples: pytest.Pytester) -> None:
    examples.makepyfile(test_alone=ALONE)
    result = run(examples, "-n2", "--dist=loadgroup", "-rP", "-k", "test_alone and not server")
    result.assert_outcomes(passed=23)
    ran = [line.split() for line in result.outlines if re.fullmatch(r"\w+ gw\d [\d.]+", line)]
    kinds = "".join(kind[0] for kind, *_ in sorted(ran, key=lambda one: float(one[2])))
    assert kinds.count("a") == 3
    assert "aaa" in kinds
    assert len({worker for kind, worker, _ in ran if kind == "alone"}) == 1


def test_a_group_is_the_server_that_takes_longest_to_start(examples: pytest.Pytester) -> None:
    examples.makepyfile(test_groups=GROUPS)
    items, _ = examples.inline_genitems(*[f"-ptests.servers.{name}" for name in ("tiers", "shared")])
    groups = {item.name: tiers.shares(item) for item in items if item.path.stem == "test_groups"}
    assert (groups["test_both"], groups["test_one"], groups["test_each[0]"]) == ("broker", "seaweedfs", "")


def test_who_is_alone_waits_for_the_others_and_lets_nobody_in(tmp_path: Path) -> None:
    entered: list[str] = []

    def enter(kind: int, name: str) -> None:
        with tiers.share(tmp_path, kind):
            entered.append(name)

    with tiers.share(tmp_path, fcntl.LOCK_SH):
        enter(fcntl.LOCK_SH, "beside")
        alone = threading.Thread(target=enter, args=(fcntl.LOCK_EX, "alone"))
        alone.start()
        while not _is_locked(tmp_path / "door"):
            os.sched_yield()
        late = threading.Thread(target=enter, args=(fcntl.LOCK_SH, "late"))
        late.start()
        assert entered == ["beside"]
    for thread in (alone, late):
        thread.join(10)
    assert entered == ["beside", "alone", "late"]


def _is_locked(path: Path) -> bool:
    with path.open("w") as door:
        try:
            fcntl.flock(door, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
