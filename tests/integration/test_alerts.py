"""The pack's rules and routes, in a real Prometheus and Alertmanager, about a real job: somebody is told."""

from __future__ import annotations

import re
import subprocess
from itertools import islice
from pathlib import Path

from pipelines.packs.prometheus import ALERTMANAGER
from pipelines.practice.events import generate
from tests.integration.job import World
from tests.servers.prometheus import Alertmanager, Prometheus, Told, program

PACK = Path(__file__).parents[2] / "templates" / "packs" / "prometheus"


def at_once(place: Path) -> Path:
    """The rules as they are, but for how long something must last: nobody waits ten minutes here."""
    copy = place / "rules.yml"
    text, replaced = re.subn(r"for: \w+", "for: 0s", (PACK / "grantex_beam.rules.yml").read_text())
    assert replaced > 10
    copy.write_text(text)
    return copy


def test_amtool_accepts_the_routes() -> None:
    done = subprocess.run(
        [program("amtool"), "check-config", str(PACK / "alertmanager.yml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, "SUCCESS" in done.stdout) == (0, True), done.stdout + done.stderr


def test_somebody_is_told_of_a_destination_that_is_down_and_of_its_return(
    around: World, tmp_path: Path
) -> None:
    program("prometheus")
    with Told() as told, around.live_job() as job:
        routes = re.sub(r"127\.0\.0\.1:9095", f"127.0.0.1:{told.port}", ALERTMANAGER)
        alertmanager = Alertmanager(
            tmp_path, re.sub(r"group_wait: 30s", "group_wait: 0s\n  group_interval: 1s", routes)
        )
        prometheus = Prometheus(tmp_path, job.port, [at_once(tmp_path)], alertmanager.port)
        with alertmanager.process, prometheus.process:
            around.feed.publish_many([*islice(generate(), 20), b"no JSON"])
            prometheus.wait_for('grantex_events_delivered_total{destination="splunk"} == 20')
            assert not told.of("GrantexDestinationDown")
            around.splunk.busy()
            around.feed.publish_many(islice(generate(), 10))
            prometheus.process.wait_until(lambda: bool(told.of("GrantexDestinationDown")), "told", timeout=60)
            (first, *_) = told.of("GrantexDestinationDown")
            assert first["labels"]["destination"] == "splunk"
            assert first["labels"]["severity"] == "critical"
            assert first["annotations"]["summary"] == "splunk does not take events; they wait in the journal."
            around.splunk.busy(0)
            gone = lambda: bool(told.of("GrantexDestinationDown", "resolved"))  # noqa: E731
            prometheus.process.wait_until(gone, "told of its return", timeout=60)
            # the job is stopped: nobody exports
            job.drain()
            prometheus.process.wait_until(
                lambda: bool(told.of("GrantexExporterAbsent")), "told that nobody exports", timeout=90
            )
            assert not told.of("GrantexDestinationDown", "firing")[1:], "told once"
