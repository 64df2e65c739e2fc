"""`make verify-splunk` against a practice Splunk, which runs no search: it is told the rows beforehand."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from splunklib import client

from pipelines.packs import splunk
from pipelines.packs.detections import CATALOGUE
from pipelines.practice.http_server import Answer, Request
from pipelines.practice.splunk import PracticeSplunk
from tests.integration.verify_splunk import TIMES, Verification, expected
from tests.pipelines.packs.cases import Cases, moment
from tests.servers.splunk_management import PracticeSplunkManagement, feed


class Searching(PracticeSplunkManagement):
    """With lookups, and searches whose rows are known beforehand."""

    def __init__(self, hec: PracticeSplunk, rows: Mapping[str, list[dict[str, Any]]]) -> None:
        super().__init__(hec)
        self._hec = hec
        self._rows = rows
        self.searches: list[str] = []
        self.lookups: list[tuple[str, str]] = []

    def _answer(self, request: Request, path: str) -> Answer:
        if "jobs" in path:
            search = parse_qs(request.body.decode())["search"][0]
            self.searches.append(search)
            return Answer(200, json.dumps({"preview": False, "results": self._found(search)}).encode())
        for root in ("storage/collections/config", "data/transforms/lookups"):
            if path.startswith(root):
                self.lookups.append((request.method, path))
                return Answer(404 if request.method == "GET" and path != root else 200, feed(root, [], 0))
        return super()._answer(request, path)

    def _found(self, search: str) -> list[dict[str, Any]]:
        if search.endswith("| stats count"):
            return [{"count": str(len(self._hec.events))}]
        return next((rows for key, rows in self._rows.items() if key in search), [])


@pytest.fixture
def cases() -> Cases:
    return Cases(time.time())


@pytest.fixture
def hec() -> Iterator[PracticeSplunk]:
    with PracticeSplunk() as running:
        yield running


def right(cases: Cases) -> dict[str, list[dict[str, Any]]]:
    """What a Splunk that is right would answer, by the end of the search."""
    found = {}
    for one in CATALOGUE:
        if one.splunk is not None:
            columns, rows = expected(cases, one.name)
            found[splunk.expanded(splunk.spl(one), "x").partition("|")[2]] = [
                {name: shown(name, each) for name, each in zip(columns, row, strict=True) if each is not None}
                for row in rows
            ]
    return found


def shown(column: str, value: Any) -> str:
    return str(moment({"createdAt": value})) if column in TIMES else str(value)


def verify(hec: PracticeSplunk, cases: Cases, rows: Any) -> tuple[int, list[str], Searching]:
    with Searching(hec, rows) as management:
        parts = urlsplit(management.url)
        service = client.connect(
            host=parts.hostname, port=parts.port, scheme=parts.scheme, splunkToken=management.bearer
        )
        said: list[str] = []
        wrong = Verification(service, hec.url, cases, wait=0.0, say=said.append).run()
        return wrong, said, management


def test_a_splunk_that_is_right_passes_and_is_left_as_it_was(hec: PracticeSplunk, cases: Cases) -> None:
    before = set(hec.indexes), [token.name for token in hec.tokens]
    wrong, said, management = verify(hec, cases, right(cases))
    assert (wrong, said[-1]) == (0, "0 of the searches do not find what they must: none")
    assert [bytes(one.event) for one in hec.events] == [one.raw for one in cases.events()]
    assert (set(hec.indexes), [token.name for token in hec.tokens]) == before
    assert len(management.searches) == 1 + 1 + sum(one.splunk is not None for one in CATALOGUE)
    for search in management.searches:
        assert search.startswith('search index="grantex_verify_')
        assert "`" not in search
    assert [one for one in management.lookups if one[0] == "DELETE"], "the lookup is removed again"


def test_a_search_that_finds_one_row_less_is_named(hec: PracticeSplunk, cases: Cases) -> None:
    rows = right(cases)
    spike = splunk.expanded(splunk.spl(CATALOGUE[0]), "x").partition("|")[2]
    rows[spike] = rows[spike][:-1]
    wrong, said, _ = verify(hec, cases, rows)
    assert wrong == 1
    assert said[-1].endswith("revocation_spike")
    assert any(line.startswith("WRONG revocation_spike: 1 rows") for line in said)


def test_what_was_made_is_removed_when_hec_refuses(hec: PracticeSplunk, cases: Cases) -> None:
    hec.answer(400, path="/services/collector/event")
    with pytest.raises(RuntimeError, match="HEC did not take the events"):
        verify(hec, cases, {})
    assert hec.indexes == {"main"}
