"""docs/start.md followed as it stands, between practice services, until the alert itself finds the event."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pipelines.practice.datadog import KEY as DATADOG_KEY
from pipelines.practice.feed import PRACTICE_KEY, PracticeFeed
from pipelines.practice.splunk import PracticeSplunk
from tests.integration.job import ROOT, Job, free_port
from tests.servers.datadog_account import APP_KEY, MONITORS, PIPELINES, AccountDatadog
from tests.servers.datadog_search import SearchingDatadog, matches
from tests.servers.splunk_management import PASSWORD, PracticeSplunkManagement

PAGE = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
PATIENCE = 60.0
pytestmark = pytest.mark.timeout(300)  # programs one after another, each of which imports Beam
ACTIVATE = 'PATH="$PWD/bin:$PATH"\n'
PROGRAM = """#!/bin/sh
[ "$1" != provision ] || export $OF_PROVISION
exec "$PYTHON" -m pipelines.programs "$@"
"""


def steps(heading: str) -> str:
    """The commands below a heading."""
    _, _, rest = PAGE.partition(f"\n## {heading}")
    assert rest, f"docs/start.md has no {heading!r}"
    return "".join(re.findall(r"^```\n(.*?)^```", rest.partition("\n## ")[0], re.M | re.S))


class Walk:
    """A directory like a fresh clone, in which a reader types what the page says.

    instead: what the page names and what stands in its place here; of_provision: NAME=value for `provision`.
    """

    def __init__(
        self, directory: Path, environ: Mapping[str, str], instead: Mapping[str, str], of_provision: str = ""
    ) -> None:
        self.directory, self._instead, self.port = directory, instead, free_port()
        for name, text in {"bin/grantex-beam": PROGRAM, ".venv/bin/activate": ACTIVATE}.items():
            path = directory / name
            path.parent.mkdir(parents=True)
            path.write_text(text)
            path.chmod(0o755)
        self._environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith("GRANTEX_")},
            "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PYTHON": sys.executable,
            "OF_PROVISION": of_provision or "NOTHING=1",
            "GRANTEX_STATUS_PORT": str(self.port),
            "FEED_KEY": PRACTICE_KEY,
            **environ,
        }

    def types(self, commands: str) -> str:
        """What they print; whoever is asked says yes."""
        done = subprocess.run(
            ["bash", "-e"],
            **self._about(commands),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        printed: str = done.stdout
        return printed

    @contextlib.contextmanager
    def keeps_running(self, command: str) -> Iterator[None]:
        """While the last command runs, which Ctrl-C ends."""
        log = self.directory / "log"
        about = {name: value for name, value in self._about("").items() if name != "input"}
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self._here(command)}"], **about, stdout=out, stderr=subprocess.STDOUT
            )
        job = Job(process, log, self.port, 0)
        try:
            job.wait_until(lambda: job.get("/readyz")[0] == 200, "it is ready", PATIENCE)
            yield
            job.signal(signal.SIGINT)
            assert job.wait(PATIENCE) == 0
        except BaseException:
            print(job.log)
            raise
        finally:
            job.kill()

    def _about(self, commands: str) -> dict[str, Any]:
        return {"cwd": self.directory, "env": self._environ, "input": self._here(commands)}

    def _here(self, commands: str) -> str:
        # A question is answered from the terminal, which is none here.
        commands = re.sub(r"^(grantex-beam provision .*)$", r"echo y | \1", commands, flags=re.M)
        for theirs, ours in self._instead.items():
            commands = commands.replace(theirs, ours)
        return commands


def set_up(walk: Walk, destination: str) -> None:
    """The first steps, for one of the two destinations."""
    walk.types(steps("2"))
    walk.types(steps(destination))


def test_from_the_key_to_the_first_alert_on_splunk(tmp_path: Path) -> None:
    with PracticeFeed(keepalive=0.5) as feed, PracticeSplunk() as hec:
        hec.tokens.clear()  # a new one has none
        with PracticeSplunkManagement(hec) as management:
            environ = {"GRANTEX_FEED_URL": feed.url, "SPLUNK_PASSWORD": PASSWORD}
            instead = {"https://splunk.example.com:8088": hec.url}
            walk = Walk(tmp_path, environ, instead, f"GRANTEX_SPLUNK_MANAGEMENT_URL={management.url}")
            set_up(walk, "3 \u00b7 Splunk")
            check, start = steps("4").splitlines()
            walk.types(check)
            with walk.keeps_running(start):
                walk.types(steps("5"))
            (found,) = [each for each in hec.events if each.source != "grantex-beam-check"]
            alert = management.knowledge["saved/searches"].kept["Grantex - Budget exhausted"]
    assert found.index == "grantex"
    assert found.source == "grantex"
    assert json.loads(bytes(found.event))["type"] == "budget.exhausted"
    assert 'type="budget.exhausted"' in alert["search"]
    assert alert["is_scheduled"] == "1"


def test_from_the_key_to_the_first_alert_on_datadog(tmp_path: Path) -> None:
    with PracticeFeed(keepalive=0.5) as feed, AccountDatadog() as datadog:
        environ = {
            "GRANTEX_FEED_URL": feed.url,
            "GRANTEX_DATADOG_ENDPOINT": datadog.url,
            "DATADOG_API_KEY": DATADOG_KEY,
            "DATADOG_APP_KEY": APP_KEY,
        }
        walk = Walk(tmp_path, environ, {})
        set_up(walk, "3 \u00b7 Or Datadog")
        walk.types(steps("5"))
        (log,) = [each for each in datadog.events if each.id.startswith("evt_TRIAL")]
        searched = SearchingDatadog()  # reads logs by the pipeline that was set up
        searched.pipelines = dict(datadog.kept[PIPELINES])
        found = searched.attributes(log)
        monitors = {body["name"]: body for body in datadog.kept[MONITORS].values()}
    query = monitors["Grantex: Budget exhausted"]["query"]
    search = re.match(r'logs\("([^"]*)"\)', query)
    assert search is not None
    assert matches(search[1], found)
    assert found["@grantex.grant_id"] == "grnt_TRIAL"
