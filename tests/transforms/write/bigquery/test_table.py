"""The table: names, what other columns mean, and making it when it is missing, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.practice.bigquery import PracticeBigQuery
from tests.transforms.write.bigquery.server import TABLE, ids, reaching
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later
from transforms.write.bigquery.rows import columns
from transforms.write.bigquery.table import definition, parse_table

NAME = parse_table("practice.grantex.events")


@pytest.fixture
def server() -> Iterator[PracticeBigQuery]:
    with PracticeBigQuery() as running:
        yield running


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("my-project.set.events", "projects/my-project/datasets/set/tables/events"),
        ("example.com:my-project.set.a-b", "projects/example.com:my-project/datasets/set/tables/a-b"),
        ("my-project:set.events", "projects/my-project/datasets/set/tables/events"),
    ],
)
def test_names_as_bigquery_and_its_older_tools_write_them(text: str, path: str) -> None:
    assert parse_table(text).path == path


@pytest.mark.parametrize("text", ["", "set.events", "p.s.t.u", "my-project.s-t.events", "p.s.t/../u", "a.b."])
def test_no_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"project\.dataset\.table"):
        parse_table(text)


def with_columns(server: PracticeBigQuery, *changes: dict[str, str], without: str = "") -> None:
    """Make the table with other columns than ours."""
    made = definition(NAME, "typed")
    fields = {field["name"]: field for field in made["schema"]["fields"] if field["name"] != without}
    fields |= {change["name"]: change for change in changes}
    made["schema"]["fields"] = list(fields.values())
    server.tables.create(server.path(TABLE), made)


def test_further_columns_and_other_letters_do_no_harm(server: PracticeBigQuery) -> None:
    with_columns(
        server,
        {"name": "team", "type": "STRING"},
        {"name": "EVENT_TYPE", "type": "string"},
        without="event_type",
    )
    assert reaching(server).open().write(batch(2)) is None
    assert ids(server).total() == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "created_at", "type": "STRING"}, "created_at is STRING and should be TIMESTAMP"),
        ({"name": "data", "type": "JSON", "mode": "REPEATED"}, "data is an array of JSON and should be JSON"),
        ({"name": "team", "type": "STRING", "mode": "REQUIRED"}, "team is REQUIRED and nothing of an event"),
    ],
)
def test_columns_that_cannot_take_our_rows_are_named(
    server: PracticeBigQuery, change: dict[str, str], words: str
) -> None:
    with_columns(server, change)
    outcome = all_later(reaching(server).open().write(batch(2)), 2)
    assert outcome.blocked
    assert words in outcome.cause
    assert "Name another table (it is created) or try --bigquery_schema=compatible" in outcome.cause


@pytest.mark.parametrize("column", columns("typed"), ids=lambda column: column.name)
def test_a_column_that_is_missing_comes_with_the_statement_that_adds_it(
    server: PracticeBigQuery, column: object
) -> None:
    with_columns(server, without=column.name)  # type: ignore[attr-defined]
    outcome = all_later(reaching(server).open().write(batch(2)), 2)
    assert outcome.blocked
    assert f"ALTER TABLE `{NAME}` ADD COLUMN {column.name} {column.type}" in outcome.cause  # type: ignore[attr-defined]


def test_a_view_is_no_table(server: PracticeBigQuery) -> None:
    server.tables.create(server.path(TABLE), {"type": "VIEW", "schema": {"fields": []}})
    outcome = all_later(reaching(server).open().write(batch(2)), 2)
    assert outcome.blocked
    assert f"{NAME} is a view, not a table" in outcome.cause


def test_somebody_who_makes_the_table_first_is_no_fault(server: PracticeBigQuery) -> None:
    writers = [reaching(server).open() for _ in range(3)]
    for writer in writers:
        assert writer.write(batch(1)) is None
    server.tables.drop(server.path(TABLE))
    server.answer(404, b"", path=f"/{TABLE}")  # and then it is there
    server.tables.create(server.path(TABLE), definition(NAME, "typed"))
    assert reaching(server).open().write(batch(1)) is None


@pytest.mark.parametrize(
    ("status", "blocked", "words"),
    [
        (401, True, "service account or user that is valid"),
        (403, True, "roles/bigquery.dataEditor"),
        (503, False, "(503)"),
        (502, False, "(502)"),  # whatever became of the question: no row was sent
        (429, False, "(429)"),
    ],
)
def test_a_look_at_the_table_that_is_refused(
    server: PracticeBigQuery, status: int, blocked: bool, words: str
) -> None:
    writer = reaching(server).open()
    server.answer(status, b"", path=f"/{TABLE}")
    outcome = all_later(writer.write(batch(2)), 2)
    assert (outcome.blocked, outcome.unknown) == (blocked, False)
    assert words in outcome.cause
    assert writer.write(batch(2)) is None


def test_a_proxys_page_is_no_table(server: PracticeBigQuery) -> None:
    server.answer(200, b"<html>sign in", path=f"/{TABLE}")
    outcome = all_later(reaching(server).open().write(batch(2)), 2)
    assert outcome.blocked
    assert "not BigQuery's: check --bigquery_endpoint" in outcome.cause


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_reset_while_looking_is_later_and_nothing_was_sent(server: PracticeBigQuery, when: str) -> None:
    writer = reaching(server).open()
    server.reset(when, path=f"/{TABLE}")  # type: ignore[arg-type]
    outcome = all_later(writer.write(batch(2)), 2)
    assert not outcome.unknown
    assert writer.write(batch(2)) is None
