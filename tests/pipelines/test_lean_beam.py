"""What the job does not load, and that others still can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(program: str) -> str:
    """What a new interpreter says while it runs this."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_job_does_not_load_arrow_and_says_nothing_of_it_and_others_still_can() -> None:
    said = run(
        "import sys, pipelines.stream\n"
        "assert 'pyarrow' not in sys.modules\n"
        "import pyarrow\n"
        "assert pyarrow.array([1]).to_pylist() == [1]"
    )
    assert said == ""


def test_what_is_loaded_already_stays() -> None:
    run("import pyarrow, sys, pipelines.stream\nassert sys.modules['pyarrow'] is pyarrow")
