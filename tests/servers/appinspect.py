"""Splunk's own AppInspect: what Splunkbase and Splunk Cloud look at in an app, without a Splunk."""

from __future__ import annotations

import ctypes.util
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.process import cache_directory, install_once, may_start, own_environment, unavailable

VERSION = "4.3.1"
# AppInspect asks for setuptools at its start and takes whichever is there.
PACKAGES = (f"splunk-appinspect=={VERSION}", "setuptools<81")
INSTALL_SECONDS = 300.0


def installed() -> Path:
    """Its program, in an environment of its own, because its requirements are not ours; made once."""
    if ctypes.util.find_library("magic") is None:
        unavailable("AppInspect needs libmagic (Debian: apt install libmagic1)")
    home = cache_directory(f"splunk-appinspect-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}")
    fault = f"splunk-appinspect {VERSION} cannot be installed here"
    with install_once(home) as missing:
        if missing:
            own_environment(home, PACKAGES, fault, INSTALL_SECONDS)
    return home / "venv/bin/splunk-appinspect"


def inspect(app: Path, report: Path) -> Mapping[str, Any]:
    """The report of all its checks, Splunk Cloud's among them, about an app's directory or package."""
    program = installed()
    may_start("AppInspect")
    command = [str(program), "inspect", str(app), "--mode", "precert", "--data-format", "json"]
    command += ["--output-file", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert report.exists(), (done.stdout + done.stderr)[-3000:]
    found: Mapping[str, Any] = json.loads(report.read_text())
    return found
