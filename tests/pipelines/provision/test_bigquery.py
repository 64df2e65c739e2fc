"""`provision bigquery` against an emulator: dataset, table, views and procedure, made once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.pipelines.provision.conftest import Run
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.bigquery_views import ShowingViews
from tests.transforms.write.encodings import batch
from transforms.write.bigquery.destination import BigQuery

NAMES = (f"provisioned_{number}" for number in itertools.count())


@dataclass
class Provisioning:
    emulator: Emulator
    service: ShowingViews
    run: Run
    dataset: str

    def __call__(self, *flags: str, **more: Any) -> int:
        table = f"--bigquery_table={PROJECT}.{self.dataset}.events"
        usual = (f"--bigquery_endpoint={self.service.url}", "--bigquery_method=insert_all")
        return self.run("bigquery", table, *usual, "--bigquery_location=EU", *flags, **more)

    def view(self, name: str) -> str:
        """Its query as the service shows it."""
        return str(httpx.get(self._url(name)).raise_for_status().json()["view"]["query"])

    def change_view(self, name: str, query: str) -> None:
        view = {"query": query, "useLegacySql": False}
        httpx.patch(self._url(name), json={"view": view}).raise_for_status()

    def _url(self, table: str) -> str:
        root = f"{self.service.url}/bigquery/v2/projects/{PROJECT}/datasets"
        return f"{root}/{self.dataset}/tables/{table}"


@pytest.fixture
def provisioning(emulator: Emulator, run: Run) -> Iterator[Provisioning]:
    with ShowingViews(emulator.rest) as service:
        yield Provisioning(emulator, service, run, next(NAMES))


def test_the_job_writes_and_the_views_show_each_event_once(provisioning: Provisioning) -> None:
    assert provisioning("--yes=true") == 0, provisioning.run.err
    emulator, dataset = provisioning.emulator, provisioning.dataset
    table = f"{PROJECT}.{dataset}.events"
    made = emulator.table(f"{dataset}.events")
    assert made["timePartitioning"] == {"type": "DAY", "field": "created_at"}
    assert made["clustering"] == {"fields": ["event_type"]}
    bigquery = BigQuery(table, method="insert_all", endpoint=emulator.rest)
    writer = bigquery.open()
    assert writer.write(batch(3)) is None
    assert writer.write(batch(3)) is None  # what comes again; the emulator takes it twice
    writer.close()
    assert len(emulator.ids(f"{dataset}.events")) == 6
    assert len(emulator.ids(f"{dataset}.events_once")) == 3
    assert len(emulator.ids(f"{dataset}.events_joined")) == 3
    assert emulator.query(f"SELECT COUNT(*) FROM `{table}_grants`")


def test_a_second_time_nothing_is_changed_and_it_says_so(provisioning: Provisioning) -> None:
    assert provisioning("--yes=true", "--retention=gdpr") == 0, provisioning.run.err
    assert provisioning("--retention=gdpr") == 0  # and nothing is asked
    assert provisioning.run.lines[-1] == "nothing is to be done"
    assert "different" not in provisioning.run.out
    assert "roles/bigquery.dataEditor` ON TABLE" in provisioning.run.out


def test_what_somebody_changed_is_shown_and_left(provisioning: Provisioning) -> None:
    assert provisioning("--yes=true") == 0
    provisioning.change_view("events_once", "SELECT 1 AS one")
    assert provisioning("--yes=true") == 0
    assert "different   the view events_once" in provisioning.run.out
    assert "- SELECT 1 AS one" in provisioning.run.out
    assert "left so; --overwrite=true" in provisioning.run.out
    assert provisioning.view("events_once") == "SELECT 1 AS one"
    assert provisioning("--yes=true", "--overwrite=true") == 0
    assert "now ours    the view events_once" in provisioning.run.out
    assert provisioning.view("events_once").startswith("SELECT *")
    assert provisioning() == 0
    assert provisioning.run.lines[-1] == "nothing is to be done"


def test_a_table_that_the_job_cannot_fill_says_so_and_what_to_do(provisioning: Provisioning) -> None:
    url = f"{provisioning.emulator.rest}/bigquery/v2/projects/{PROJECT}/datasets"
    reference = {"projectId": PROJECT, "datasetId": provisioning.dataset}
    httpx.post(url, json={"datasetReference": reference, "location": "EU"}).raise_for_status()
    fields = [{"name": "event_id", "type": "INTEGER"}]
    table = {"tableReference": {**reference, "tableId": "events"}, "schema": {"fields": fields}}
    httpx.post(f"{url}/{provisioning.dataset}/tables", json=table).raise_for_status()
    assert provisioning(ask=lambda question: "n") == 1
    assert "different   the table" in provisioning.run.out
    assert "event_id is INTEGER and should be STRING" in provisioning.run.out
    assert "partitions: there none of arrival, ours day of created_at" in provisioning.run.out


def test_where_data_lives_must_be_said(emulator: Emulator, run: Run) -> None:
    flags = [f"--bigquery_table={PROJECT}.nowhere.events", f"--bigquery_endpoint={emulator.rest}"]
    flags.append("--bigquery_method=insert_all")
    assert run("bigquery", *flags, "--yes=true") == 2
    assert "--bigquery_location: is missing" in run.err
    assert run("bigquery", "--yes=true") == 2
    assert "--bigquery_table: is missing" in run.err


def test_printed_it_is_sql_that_makes_the_same(provisioning: Provisioning, tmp_path: Path) -> None:
    assert provisioning("--print=true", f"--into={tmp_path}") == 0
    text = (tmp_path / "bigquery.sql").read_text()
    for statement in (
        "CREATE SCHEMA",
        "PARTITION BY DATE(created_at)",
        "CLUSTER BY event_type",
        "events_once",
    ):
        assert statement in text
    emulator, dataset = provisioning.emulator, provisioning.dataset
    create, rest = text.split(";\n", 1)
    table, *_ = rest.split(";\n", 1)
    for statement in (create, table):
        emulator.query(statement)
    wanted = [each["name"] for each in emulator.table(f"{dataset}.events")["schema"]["fields"]]
    assert wanted == ["event_id", "event_type", "created_at", "data", "event"]
    assert "dataEditor" in (tmp_path / "grant.sql").read_text()
