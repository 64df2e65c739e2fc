"""Each test of the suite runs against every destination; the table of what became of its events ends it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.case import Case, Place
from tests.conformance.cases import CASES, SERVERS
from tests.conformance.tally import Tally
from transforms.write.bigquery import storage_write as bigquery_storage_client
from transforms.write.kafka import writer as kafka_writer
from transforms.write.over_http import reply as http_reply
from transforms.write.pubsub import writer as pubsub_writer
from transforms.write.s3 import writer as s3_client

# A service of the tests that has not answered by then does not want to.
PATIENCE = 1.0
TABLE = "CONFORMANCE_TABLE"  # in the environment: a file for the table, which pytest -s shows as well

_tally = Tally()
_numbers = itertools.count()
_PARAMETERS = [
    pytest.param(name, marks=pytest.mark.xdist_group(SERVERS[name])) if name in SERVERS else name
    for name in CASES
]


@pytest.fixture(scope="session")
def tally() -> Tally:
    return _tally


@pytest.fixture(params=_PARAMETERS)
def case(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """One destination and its service, nothing delivered yet; the test runs once for each."""

    def server(fixture: str) -> object:
        assert SERVERS.get(request.param) == fixture, f"SERVERS must name the {fixture} of {request.param}"
        return request.getfixturevalue(fixture)

    name = f"conform-{request.param}-{next(_numbers)}".replace("_", "-")
    place = Place(tmp_path, monkeypatch, server, name)
    with CASES[request.param](place) as made:
        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writers that wait for answers half a second instead of up to half a minute."""
    monkeypatch.setattr(http_reply, "READ_SECONDS", PATIENCE)
    monkeypatch.setattr(s3_client, "READ_SECONDS", PATIENCE)
    monkeypatch.setattr(bigquery_storage_client, "APPEND_SECONDS", PATIENCE)
    monkeypatch.setattr(bigquery_storage_client, "CALL_SECONDS", PATIENCE)
    monkeypatch.setattr(kafka_writer, "PATIENCE", PATIENCE)
    monkeypatch.setattr(pubsub_writer, "PUBLISH_SECONDS", PATIENCE)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """The table, where somebody asked for it."""
    if not _tally.rows:
        return
    table = _tally.table()
    if os.environ.get(TABLE):
        Path(os.environ[TABLE]).write_text("\n".join(table) + "\n")
    if config.getoption("capture") == "no":
        terminalreporter.section("what became of the events")
        for line in table:
            terminalreporter.write_line(line)
