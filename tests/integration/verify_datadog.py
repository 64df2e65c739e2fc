"""Asks a real Datadog what each monitor of the pack counts: `make verify-datadog API_KEY=… APP_KEY=…`.

It makes a log pipeline for a service of its own, sends the cases' newest events as the job does, has Datadog
validate every monitor, and compares what each one's search counts, group by group. The pipeline is removed
again; the logs (some hundred) age out by themselves, and no monitor is made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from datadog_api_client import ApiClient, Configuration
from datadog_api_client.exceptions import ApiException
from datadog_api_client.v1.api.logs_pipelines_api import LogsPipelinesApi
from datadog_api_client.v1.api.monitors_api import MonitorsApi
from datadog_api_client.v1.model.logs_pipeline import LogsPipeline
from datadog_api_client.v1.model.monitor import Monitor as MonitorBody
from datadog_api_client.v2.api.logs_api import LogsApi
from datadog_api_client.v2.model.logs_aggregate_request import LogsAggregateRequest

from pipelines.packs import datadog
from pipelines.packs.detection import Monitor
from pipelines.packs.detections import CATALOGUE
from tests.pipelines.packs.cases import Cases, batches
from tests.pipelines.packs.datadog_cases import Groups, counted, recent
from transforms.event import Event
from transforms.secret import LiteralSecret
from transforms.write.datadog.destination import Datadog

HOURS = 17.0
ARRIVAL_SECONDS = 300.0
BATCH = 500


@dataclass
class Verification:
    """One run against one account. settle: seconds until a new pipeline is at work; wait: between looks."""

    api: ApiClient
    destination: Datadog
    cases: Cases
    settle: float = 90.0
    wait: float = 5.0
    say: Callable[[str], None] = print

    def run(self) -> int:
        """0 when Datadog takes every monitor and counts what it must; else the number of faults."""
        events = recent(self.cases, HOURS)
        faults = [body["name"] for body in datadog.monitors() if not self._valid(body)]
        with self._pipeline():
            time.sleep(self.settle)
            self._send(events)
            self._await_arrival(len({one.id for one in events}))
            for one in CATALOGUE:
                if one.alerts and isinstance(one.datadog, Monitor):
                    search = one.filled(one.datadog.search)
                    found = self._count(search, one.datadog.by)
                    wanted = counted(events, one.name)
                    self.say(f"{'ok   ' if found == wanted else 'WRONG'} {one.name}: {len(found)} groups")
                    if found != wanted:
                        faults.append(one.name)
                        self.say(f"      wanted {wanted}\n      found  {found}")
        self.say(f"{len(faults)} faults: {', '.join(faults) or 'none'}")
        return len(faults)

    def _valid(self, body: datadog.Body) -> bool:
        try:
            MonitorsApi(self.api).validate_monitor(MonitorBody(**body))
        except ApiException as error:
            self.say(f"WRONG {body['name']}: {error.body}")
            return False
        return True

    @contextlib.contextmanager
    def _pipeline(self) -> Iterator[None]:
        """Ours, for this run's service alone."""
        body = {**datadog.pipeline(), "name": f"Grantex, {self.destination.service}"}
        body["filter"] = {"query": f"{datadog.SOURCE} service:{self.destination.service}"}
        pipelines = LogsPipelinesApi(self.api)
        made = pipelines.create_logs_pipeline(LogsPipeline(**body))
        try:
            yield
        finally:
            pipelines.delete_logs_pipeline(made.id)

    def _send(self, events: Sequence[Event]) -> None:
        writer = self.destination.open()
        for batch in batches(events, BATCH):
            outcome = writer.write(batch)
            if outcome is not None:
                raise RuntimeError(f"Datadog did not take the events: {outcome.cause}")
        writer.close()
        self.say(f"sent {len(events)} events as service {self.destination.service}")

    def _await_arrival(self, wanted: int) -> None:
        until = time.monotonic() + ARRIVAL_SECONDS
        while (found := self._count("", ()).get((), 0)) < wanted:
            if time.monotonic() > until:
                raise RuntimeError(f"only {found} of {wanted} events can be searched after five minutes")
            time.sleep(self.wait)

    def _count(self, search: str, by: Sequence[str]) -> Groups:
        """Different ids by group, as a monitor of this search counts them."""
        query = f"{datadog.SOURCE} service:{self.destination.service} {search}".strip()
        body: dict[str, Any] = {
            "compute": [{"aggregation": "cardinality", "metric": "@id", "type": "total"}],
            "filter": {"query": query, "from": f"now-{int(HOURS) + 1}h", "to": "now", "indexes": ["*"]},
            "group_by": [{"facet": facet, "limit": 1000} for facet in by],
        }
        answer = LogsApi(self.api).aggregate_logs(LogsAggregateRequest(**body)).to_dict()
        return {
            tuple(str(bucket["by"][facet]) for facet in by): int(bucket["computes"]["c0"])
            for bucket in answer["data"]["buckets"]
            if bucket["computes"]["c0"]
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0 when nothing is wrong, 1 when something is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--site", default=os.environ.get("SITE", "datadoghq.com"))
    given = parser.parse_args(arguments)
    keys = os.environ.get("API_KEY"), os.environ.get("APP_KEY")  # no flags: `ps` shows those
    if not all(keys):
        parser.error("needs API_KEY and APP_KEY (make verify-datadog API_KEY=… APP_KEY=… SITE=datadoghq.eu)")
    configuration = Configuration(api_key=dict(zip(("apiKeyAuth", "appKeyAuth"), keys, strict=True)))
    configuration.server_variables["site"] = given.site
    cases = Cases(time.time())
    service = f"grantex-verify-{int(cases.now)}"
    destination = Datadog(LiteralSecret(str(keys[0])), given.site, service=service)
    with ApiClient(configuration) as api:
        return 1 if Verification(api, destination, cases).run() else 0


if __name__ == "__main__":
    sys.exit(main())
