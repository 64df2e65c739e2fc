"""bqemulator, a BigQuery in one process: REST, queries and the Storage Write API over gRPC.

Faithful in offsets, repeats, gaps and finalizing; it neither removes repeats by insertId nor names single
rows in row_errors, and takes unknown columns (`tests/transforms/write/bigquery/server.py` does those). Its
JSON_VALUE_ARRAY fails on what is no array, where BigQuery has NULL.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers.process import (
    ServerProcess,
    cache_directory,
    fetch,
    free_port,
    install_once,
    listens,
    own_environment,
)

VERSION = "1.4.0"
DUCKDB = "1.5.5"
# All that it needs beyond its own requirements, pinned like itself.
PACKAGES = (
    f"bqemulator=={VERSION}",
    f"duckdb=={DUCKDB}",
    f"duckdb-extension-spatial=={DUCKDB}",
    f"duckdb-extensions=={DUCKDB}",
    "numpy",
)
# DuckDB would fetch the extension from the internet; the wheel has it.
INSTALL_EXTENSION = "from duckdb_extensions import import_extension; import_extension('spatial')"
# Each open AppendRows call holds a thread of asyncio's pool, which has only four more than processors. For
# time travel it would copy the whole table after every append: 16 GB after 500 of them.
START = """
import os
os.cpu_count = lambda: 28
from bqemulator.cli import main
from bqemulator.versioning.snapshots import SnapshotManager
SnapshotManager.capture = lambda *args, **settings: None
main()
"""
INSTALL_SECONDS = 300.0
PROJECT = "practice"
PAGE_ROWS = 1_000_000


@dataclass(frozen=True)
class Emulator:
    """A running emulator and an independent client of it."""

    process: ServerProcess
    rest: str
    storage: str

    def create_dataset(self, name: str) -> None:
        body = {"datasetReference": {"projectId": PROJECT, "datasetId": name}}
        reply = httpx.post(f"{self.rest}/bigquery/v2/projects/{PROJECT}/datasets", json=body)
        reply.raise_for_status()

    def table(self, name: str) -> dict[str, Any]:
        """The definition of "dataset.table"."""
        dataset, table = name.split(".")
        url = f"{self.rest}/bigquery/v2/projects/{PROJECT}/datasets/{dataset}/tables/{table}"
        found: dict[str, Any] = httpx.get(url).raise_for_status().json()
        return found

    def query(self, sql: str) -> list[tuple[str | None, ...]]:
        """The rows of a query, each value as BigQuery's REST API writes it."""
        return [tuple(cell["v"] for cell in row["f"]) for row in self._answer(sql).get("rows", [])]

    def rows(self, sql: str) -> list[dict[str, Any]]:
        """As `query`, by column."""
        answer = self._answer(sql)
        names = [field["name"] for field in answer["schema"]["fields"]]
        cells = [[cell["v"] for cell in row["f"]] for row in answer.get("rows", [])]
        return [dict(zip(names, row, strict=True)) for row in cells]

    def _answer(self, sql: str) -> dict[str, Any]:
        body = {"query": sql, "useLegacySql": False, "maxResults": PAGE_ROWS}
        url = f"{self.rest}/bigquery/v2/projects/{PROJECT}/queries"
        reply = httpx.post(url, json=body, timeout=60)
        assert reply.status_code == 200, f"{reply.text}\n{sql}"
        found: dict[str, Any] = reply.json()
        assert "errors" not in found, f"{found['errors']}\n{sql}"  # it says so in a 200
        assert found.get("jobComplete", True)
        page = found
        while "pageToken" in page:  # the rows of half an hour are more than one answer may have
            more = {"pageToken": page["pageToken"], "maxResults": str(PAGE_ROWS)}
            job = found["jobReference"]["jobId"]
            page = httpx.get(f"{url}/{job}", params=more, timeout=60).raise_for_status().json()
            found["rows"] += page["rows"]
        return found

    def ids(self, table: str) -> list[str]:
        """Every event_id of "dataset.table", as often as it is there."""
        return [str(row[0]) for row in self.query(f"SELECT event_id FROM `{PROJECT}.{table}`")]


@contextlib.contextmanager
def running(log: Path) -> Iterator[Emulator]:
    """An empty emulator on free ports of loopback. Skips, or fails under CI, when it cannot be had."""
    home = installed()
    rest, storage = free_port(), free_port()
    command = [str(home / "venv/bin/python"), "-c", START, "start", "--ephemeral", "--log-level", "warning"]
    command += ["--rest-port", str(rest), "--grpc-port", str(storage), "--project", PROJECT]
    with ServerProcess(command, log, env={"HOME": str(home)}) as process:
        process.wait_until(lambda: listens(rest) and listens(storage), "bqemulator")
        yield Emulator(process, f"http://127.0.0.1:{rest}", f"http://127.0.0.1:{storage}")


def installed() -> Path:
    """Its own environment, because its requirements are not ours; made once (about a minute)."""
    home = cache_directory(f"bqemulator-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}")
    fault = f"bqemulator {VERSION} cannot be installed here"
    with install_once(home) as missing:
        if missing:
            own_environment(home, PACKAGES, fault, INSTALL_SECONDS)
            extend = [str(home / "venv/bin/python"), "-c", INSTALL_EXTENSION]
            # DuckDB keeps its extensions in the home directory.
            fetch(extend, fault, INSTALL_SECONDS, env={**os.environ, "HOME": str(home)})
    return home
