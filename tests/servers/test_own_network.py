"""What a test apart has started ends with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.own_network import ALL_END_WITH_IT, REPORTS, namespace
from tests.servers.process import unavailable

ROOT = Path(__file__).parents[2]
# In a session of its own, as servers are; it keeps the output open for as long as it lives.
STARTS_A_SERVER_AND_DIES = """
import os, subprocess
subprocess.Popen(["sleep", "60"], start_new_session=True)
print("started", flush=True)
os._exit(1)
"""


@pytest.mark.slow
def test_a_server_whose_test_has_died_ends_too() -> None:
    command = namespace()
    if not set(ALL_END_WITH_IT) <= set(command):
        unavailable("it needs a process namespace (Linux, `unshare --pid` with user namespaces allowed)")
    program = [*command, sys.executable, "-c", STARTS_A_SERVER_AND_DIES]
    # Until the end of the output: whoever was left would have it open, and the time would run out.
    done = subprocess.run(program, stdout=subprocess.PIPE, timeout=30.0, check=False)
    assert (done.returncode, done.stdout) == (1, b"started\n")


LEAVES_A_SERVER = '''
import os, subprocess, sys, time
import pytest

LISTENS = """
import socket, time
listener = socket.create_server(("127.0.0.1", 7999))
print(flush=True)
time.sleep(60)
"""
pytestmark = pytest.mark.own_network

def test_leaves():
    server = subprocess.Popen([sys.executable, "-c", LISTENS], start_new_session=True, stdout=subprocess.PIPE)
    assert server.stdout.readline()
    assert len(processes()) == 3
    os.environ["LEFT"] = "behind"

def test_dies():
    os._exit(7)

def test_finds_nothing():
    subprocess.Popen([sys.executable, "-c", LISTENS], stdout=subprocess.PIPE).stdout.readline()
    assert len(processes()) == 3
    assert "LEFT" not in os.environ
    assert os.read(0, 1) == b""

def processes():
    return [name for name in os.listdir("/proc") if name.isdigit()]

@pytest.mark.own_network(limit=1)
def test_hangs():
    time.sleep(60)

def test_after_one_that_hung():
    assert len(processes()) == 2
'''


@pytest.mark.slow
def test_one_namespace_for_several_tests_keeps_nothing_of_the_one_before(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not set(ALL_END_WITH_IT) <= set(namespace()):
        unavailable("it needs a process namespace (Linux, `unshare --pid` with user namespaces allowed)")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv(REPORTS, raising=False)
    plugins = [f"-ptests.servers.{name}" for name in ("tiers", "own_network", "shared")]
    pytester.makepyfile(LEAVES_A_SERVER)
    pytester.makeini("[pytest]\naddopts = " + " ".join(plugins))
    result = pytester.runpytest_subprocess("-pno:hypothesispytest")
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        ["*process of this test ended with 7:*", "*process of this test ended with None:*"]
    )
