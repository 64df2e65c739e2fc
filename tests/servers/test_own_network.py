"""What a test apart has started ends with it."""

from __future__ import annotations

import subprocess
import sys

from tests.servers.own_network import ALL_END_WITH_IT, namespace
from tests.servers.process import unavailable

# In a session of its own, as servers are; it keeps the output open for as long as it lives.
STARTS_A_SERVER_AND_DIES = """
import os, subprocess
subprocess.Popen(["sleep", "60"], start_new_session=True)
print("started", flush=True)
os._exit(1)
"""


def test_a_server_whose_test_has_died_ends_too() -> None:
    command = namespace()
    if not set(ALL_END_WITH_IT) <= set(command):
        unavailable("it needs a process namespace (Linux, `unshare --pid` with user namespaces allowed)")
    program = [*command, sys.executable, "-c", STARTS_A_SERVER_AND_DIES]
    # Until the end of the output: whoever was left would have it open, and the time would run out.
    done = subprocess.run(program, stdout=subprocess.PIPE, timeout=30.0, check=False)
    assert (done.returncode, done.stdout) == (1, b"started\n")
