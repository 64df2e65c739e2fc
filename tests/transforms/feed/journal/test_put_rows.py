"""Several rows in one statement."""

from __future__ import annotations

import sqlite3

import pytest

from transforms.feed.journal.database import AT_ONCE, put_rows


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 14, 31, 32, 33, 70])
def test_rows_are_there_once_each_after_a_statement_for_many(count: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE numbers (number INTEGER PRIMARY KEY, text TEXT) WITHOUT ROWID")
    connection.execute("INSERT INTO numbers VALUES (0, 'gives way')")
    rows = [(number, f"text {number}") for number in range(count)]
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    put_rows(connection, "numbers", rows)
    connection.set_trace_callback(None)
    assert connection.execute("SELECT * FROM numbers").fetchall() == (rows or [(0, "gives way")])
    assert len(statements) == -(-count // AT_ONCE[-1])
