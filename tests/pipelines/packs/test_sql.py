"""Every detection in SQL finds what it must and nothing else: on bqemulator, and on DuckDB for Athena."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import sqlglot

from pipelines.packs import sql
from pipelines.packs.detections import CATALOGUE, named
from tests.pipelines.packs.cases import Cases, batches, text
from tests.servers import athena
from tests.servers.bigquery import PROJECT, Emulator
from transforms.event import Batch, Event
from transforms.write.bigquery.destination import BigQuery
from transforms.write.bigquery.rows import SchemaName
from transforms.write.files.destination import Files

IN_SQL = [one.name for one in CATALOGUE if one.sql]
Rows = Sequence[Mapping[str, Any]]


@pytest.fixture(scope="module")
def cases() -> Cases:
    return Cases(time.time())


@pytest.fixture(scope="module")
def for_bigquery() -> Cases:
    return Cases(time.time(), arrays=True)


@pytest.fixture(scope="module")
def tables(emulator: Emulator, for_bigquery: Cases) -> Mapping[SchemaName, str]:
    """The same events in a table of each schema, written by our own destination, with the views over it."""
    found: dict[SchemaName, str] = {
        "typed": f"{PROJECT}.events.pack",
        "compatible": f"{PROJECT}.events.pack_old",
    }
    for schema, table in found.items():
        settings = BigQuery(
            table, "storage_write", schema, endpoint=emulator.rest, storage_endpoint=emulator.storage
        )
        writer = settings.open()
        for batch in batches(for_bigquery.events(), 2000):
            assert writer.write(batch) is None
        writer.close()
        for statement in sql.bigquery_views(table, schema).values():
            emulator.query(statement)
    return found


@pytest.fixture(scope="module")
def kept(emulator: Emulator, tables: Mapping[SchemaName, str]) -> str:
    """What the views say, as tables: bqemulator takes a second to unfold views for each query."""
    table = f"{PROJECT}.events.kept"
    for view in ("stored", "once", "joined"):
        emulator.query(f"CREATE TABLE `{table}_{view}` AS SELECT * FROM `{tables['typed']}_{view}`")
    return table


@pytest.fixture(scope="module")
def from_athena(tmp_path_factory: pytest.TempPathFactory, cases: Cases) -> Mapping[str, Rows]:
    """The rows of every detection, over files that our own destination wrote."""
    archive = tmp_path_factory.mktemp("archive")
    settings = Files(str(archive))
    writer = settings.open()
    for hour, events in groupby(sorted(cases.events(), key=settings.partition), key=settings.partition):
        assert writer.write(Batch(list(events), partition=hour)) is None
    writer.close()
    queries = [sql.query(named(name), "athena") for name in IN_SQL]
    views = list(sql.athena_views().values())
    found = athena.ask(archive, sql.ATHENA_TABLE, [*views, *queries])
    return dict(zip(IN_SQL, found[len(views) :], strict=True))


def picked(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> list[tuple[Any, ...]]:
    return sorted((tuple(value(row[name]) for name in columns) for row in rows), key=str)


def value(found: Any) -> Any:
    """A value as the cases have it, whatever the service calls a number or a time."""
    if not isinstance(found, str):
        return found
    if re.fullmatch(r"-?\d+", found):
        return int(found) if len(found) < 12 else text(int(found) / 1e6)
    if re.fullmatch(r"\d+\.\d+(E\d+)?", found):
        return text(float(found))
    if re.fullmatch(r"\d{4}-\d\d-\d\d[ T][\d:.]+(Z|\+00(:00)?)?", found):
        moment = datetime.fromisoformat(re.sub(r"(Z|\+00(:00)?)$", "", found))
        return text(moment.replace(tzinfo=timezone.utc).timestamp())
    return found


def expected(cases: Cases, name: str) -> tuple[Sequence[str], list[tuple[Any, ...]]]:
    columns, rows = cases.expected()[name]
    return columns, sorted(rows, key=str)


def test_every_detection_has_a_case(cases: Cases) -> None:
    assert set(cases.expected()) == set(IN_SQL)
    assert all(rows for _, rows in cases.expected().values())


@pytest.mark.parametrize("name", IN_SQL)
def test_bigquery_finds_it_and_nothing_else(
    emulator: Emulator, kept: str, for_bigquery: Cases, name: str
) -> None:
    columns, rows = expected(for_bigquery, name)
    assert picked(emulator.rows(sql.query(named(name), "bigquery", kept)), columns) == rows


def test_both_schemas_of_bigquery_say_the_same(
    emulator: Emulator, tables: Mapping[SchemaName, str], for_bigquery: Cases
) -> None:
    names = [name for name in sql.COLUMNS if name != "data"]  # JSON here, its text there
    typed, compatible = (
        picked(emulator.rows(f"SELECT {', '.join(names)} FROM `{tables[schema]}_joined`"), names)
        for schema in ("typed", "compatible")
    )
    assert typed == compatible
    assert len(typed) == len({one.id for one in for_bigquery.events()})


def test_a_query_over_the_views_themselves_finds_the_same(
    emulator: Emulator, tables: Mapping[SchemaName, str], for_bigquery: Cases
) -> None:
    name = "cascade_revocation"
    columns, rows = expected(for_bigquery, name)
    assert picked(emulator.rows(sql.query(named(name), "bigquery", tables["typed"])), columns) == rows


@pytest.mark.servers
@pytest.mark.parametrize("name", IN_SQL)
def test_athena_finds_it_and_nothing_else(from_athena: Mapping[str, Rows], cases: Cases, name: str) -> None:
    columns, rows = expected(cases, name)
    assert picked(from_athena[name], columns) == rows


@pytest.mark.parametrize("name", IN_SQL)
def test_each_dialect_parses_as_its_own(name: str) -> None:
    for dialect in ("bigquery", "athena"):
        (parsed,) = sqlglot.parse(sql.query(named(name), dialect), read=dialect)
        assert parsed is not None


def test_athenas_table_projects_the_layout_that_the_archive_writes() -> None:
    statement = sql.athena_table("t", "s3://b/p")
    assert sqlglot.parse_one(statement, read="athena")
    assert "'storage.location.template' = 's3://b/p/dt=${dt}/hour=${hour}/'" in statement
    at = Event("evt_1", "t", "2026-03-01T02:00:00Z", b"{}")
    assert Files("/x").partition(at) == "dt=2026-03-01/hour=02", "digits = 2, yyyy-MM-dd"


def test_every_condition_on_time_of_athenas_names_the_days(tmp_path: Path) -> None:
    for name in IN_SQL:
        text_of_it = sql.query(named(name), "athena")
        assert text_of_it.count("dt >= date_format(") == named(name).sql.count("@{since:"), name
        assert "@{" not in text_of_it
