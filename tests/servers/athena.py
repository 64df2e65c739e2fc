"""A stand-in for Athena: its SQL, transpiled to DuckDB's by sqlglot, over files of our own archive.

DuckDB has an environment of its own, with its extension for time zones; a process of it is asked once, with
every statement.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sqlglot

from tests.servers.process import cache_directory, install_once, may_start, own_environment

VERSION = "1.5.5"
PACKAGES = (f"duckdb=={VERSION}", f"duckdb-extension-icu=={VERSION}", f"duckdb-extensions=={VERSION}")
INSTALL_SECONDS = 300.0
# The table as Athena's reader of lines gives it: one column, never split, and the partitions as text. The
# extension is in its wheel, where DuckDB would fetch it from the internet.
PROGRAM = """
import json, sys, duckdb
from duckdb_extensions import import_extension
import_extension("icu")
asked = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute("LOAD icu")
connection.execute("SET TimeZone = 'UTC'")
connection.execute(
    f"CREATE VIEW {asked['table']} AS SELECT * FROM read_csv('{asked['files']}', "
    "columns={'event': 'VARCHAR'}, delim='\\x01', quote='', escape='', header=false, auto_detect=false, "
    "max_line_size=10000000, hive_partitioning=true, hive_types_autocast=false)"
)
found = []
for statement in asked["statements"]:
    done = connection.execute(statement)
    names = [column[0] for column in done.description or ()]
    found.append([dict(zip(names, row)) for row in done.fetchall()])
json.dump(found, sys.stdout, default=str)
"""


def installed() -> Path:
    """DuckDB's own environment, made once."""
    home = cache_directory(f"duckdb-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}")
    with install_once(home) as missing:
        if missing:
            own_environment(home, PACKAGES, f"DuckDB {VERSION} cannot be installed here", INSTALL_SECONDS)
    return home


def transpiled(statement: str) -> str:
    """One statement of Athena's as DuckDB understands it. Raises sqlglot.errors.ParseError for what is no
    SQL of Athena's."""
    (found,) = sqlglot.transpile(statement, read="athena", write="duckdb")
    return found


def ask(archive: Path, table: str, statements: Sequence[str]) -> list[list[Mapping[str, Any]]]:
    """The rows of each statement over the gzipped NDJSON below `archive`, in order. Times are text."""
    home = installed()
    may_start("DuckDB")
    given = {
        "table": table,
        "files": f"{archive}/*/*/*.ndjson.gz",
        "statements": [transpiled(one) for one in statements],
    }
    done = subprocess.run(
        [str(home / "venv/bin/python"), "-c", PROGRAM],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"HOME": str(home)},  # where it keeps its extensions
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows: list[list[Mapping[str, Any]]] = json.loads(done.stdout)
    return rows
