"""`make verify-datadog` against a practice Datadog that reads the pack's pipeline and searches."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from datadog_api_client import ApiClient, Configuration

from pipelines.packs import datadog
from pipelines.packs.detection import Monitor
from pipelines.packs.detections import CATALOGUE
from pipelines.practice.datadog import KEY
from tests.integration.verify_datadog import Verification
from tests.pipelines.packs.cases import Cases
from tests.pipelines.packs.datadog_cases import COUNTED
from tests.servers.datadog_search import SearchingDatadog, matches
from transforms.secret import LiteralSecret
from transforms.write.datadog.destination import Datadog


@pytest.fixture
def account() -> Iterator[SearchingDatadog]:
    with SearchingDatadog() as running:
        yield running


def verify(account: SearchingDatadog) -> tuple[int, list[str]]:
    keys = {"apiKeyAuth": KEY, "appKeyAuth": "practice-application-key"}
    destination = Datadog(LiteralSecret(KEY), endpoint=account.url, service="grantex-verify-1")
    said: list[str] = []
    with ApiClient(Configuration(host=account.url, api_key=keys)) as api:
        run = Verification(api, destination, Cases(time.time()), settle=0.0, wait=0.0, say=said.append)
        return run.run(), said


def test_there_is_a_count_for_every_monitor() -> None:
    assert set(COUNTED) == {one.name for one in CATALOGUE if one.alerts and isinstance(one.datadog, Monitor)}


def test_every_monitor_counts_what_it_must_in_the_logs_that_the_job_sends(account: SearchingDatadog) -> None:
    faults, said = verify(account)
    assert (faults, said[-1]) == (0, "0 faults: none"), "\n".join(said)
    assert account.validated == [body["name"] for body in datadog.monitors()]
    assert account.pipelines == {}, "the pipeline is removed again"
    assert len(account.events) > 300


def test_a_monitor_that_datadog_refuses_is_named(account: SearchingDatadog) -> None:
    account.refused.add("Grantex: Cascade revocation")
    faults, said = verify(account)
    assert faults == 1
    assert said[-1] == "1 faults: Grantex: Cascade revocation"
    assert any("query is invalid" in line for line in said)


def test_a_pipeline_without_an_attribute_would_be_seen(
    account: SearchingDatadog, monkeypatch: pytest.MonkeyPatch
) -> None:
    less = {name: found for name, found in datadog.ATTRIBUTES.items() if name != "cascade"}
    monkeypatch.setattr(datadog, "ATTRIBUTES", less)
    faults, said = verify(account)
    assert faults == 1
    assert said[-1].endswith("cascade_revocation")


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        ("source:grantex type:a.b", True),
        ("type:(a.b OR c.d)", True),
        ("type:(c.d OR e.f)", False),
        ("@depth:>=3", True),
        ("@depth:>=4", False),
        ("@none:x", False),
    ],
)
def test_the_practice_search_reads_terms(query: str, holds: bool) -> None:
    assert matches(query, {"source": "grantex", "type": "a.b", "@depth": "3"}) is holds
