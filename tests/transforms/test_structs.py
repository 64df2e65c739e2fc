"""Classes that msgspec reads into are made up before any thread does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READ_INTO = re.compile(r"(?:type=|msgspec\.convert\([^\n]*, )(?:Sequence\[)?(_?[A-Z]\w+)\]?\)")
OTHERS = {"Raw"}  # msgspec.Raw has no fields
FIRST_AT_ONCE = """
import sys, threading
import msgspec
from collections.abc import Sequence
from transforms.structs import ready

sys.setswitchinterval(1e-6)

for _ in range(500):
    globals()["Field"] = msgspec.defstruct("Field", [("name", str), ("type", str)])
    table = READY(msgspec.defstruct("Table", [("fields", Sequence[Field], ()), ("type", str, "")]))
    barrier = threading.Barrier(4)
    def read():
        barrier.wait()
        msgspec.convert({"fields": [{"name": "a", "type": "b"}]}, table)
    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print("alive")
"""


def test_every_class_that_is_read_into_is_ready() -> None:
    sources = {
        path: path.read_text() for room in ("transforms", "pipelines") for path in (ROOT / room).rglob("*.py")
    }
    everything = "\n".join(sources.values())
    read_into = {
        name
        for path, text in sources.items()
        if "practice" not in path.parts
        for line in text.splitlines()
        if "msgspec." in line
        for name in READ_INTO.findall(line)
    } - OTHERS
    assert len(read_into) >= 7, "this looks for what is not written any more"
    assert [name for name in sorted(read_into) if f"@ready\nclass {name}(" not in everything] == []


@pytest.mark.slow
def test_several_threads_may_be_the_first_to_read_into_one() -> None:
    code = FIRST_AT_ONCE.replace("READY", "ready")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
