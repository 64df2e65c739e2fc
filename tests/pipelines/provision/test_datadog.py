"""`provision datadog` against a practice account: made once, left alone after, differences shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import hcl2
import pytest

from pipelines.packs import datadog as pack
from tests.pipelines.provision.conftest import Run
from tests.servers.datadog_account import (
    APP_KEY,
    DASHBOARDS,
    METRICS,
    MONITORS,
    PIPELINES,
    READ_ONLY_KEY,
    AccountDatadog,
)

KEYS = ("--datadog_api_key=env:DD_KEY", "--datadog_app_key=env:DD_APP")


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountDatadog]:
    with AccountDatadog() as running:
        monkeypatch.setenv("DD_KEY", running.key)
        monkeypatch.setenv("DD_APP", APP_KEY)
        yield running


@pytest.fixture
def flags(account: AccountDatadog) -> tuple[str, ...]:
    return ("datadog", *KEYS, f"--datadog_endpoint={account.url}")


def writes(account: AccountDatadog) -> int:
    return sum(1 for one in account.requests if one.method != "GET")


def test_a_new_account_gets_all_of_the_pack(
    account: AccountDatadog, run: Run, flags: tuple[str, ...]
) -> None:
    assert run(*flags, "--yes=true") == 0, run.err
    (pipeline,) = account.kept[PIPELINES].values()
    assert pipeline.items() >= pack.pipeline().items()
    assert account.kept[METRICS] == {pack.METRIC: pack.metric()}
    monitors = {one["name"]: one for one in account.kept[MONITORS].values()}
    assert monitors.keys() == {one["name"] for one in pack.monitors()}
    for wanted in pack.monitors():
        assert monitors[wanted["name"]].items() >= wanted.items()
    (dashboard,) = account.kept[DASHBOARDS].values()
    assert dashboard["widgets"] == pack.dashboard()["widgets"]
    assert "by hand     facets" in run.out
    assert "Cloud SIEM" in run.out
    assert APP_KEY not in run.out + run.err


def test_a_second_time_nothing_is_changed_and_it_says_so(
    account: AccountDatadog, run: Run, flags: tuple[str, ...]
) -> None:
    assert run(*flags, "--yes=true") == 0
    before = writes(account)
    assert run(*flags) == 0  # and nothing is asked
    assert run.lines[-1] == "nothing is to be done"
    assert "different" not in run.out
    assert writes(account) == before


def test_what_somebody_changed_is_shown_and_left(
    account: AccountDatadog, run: Run, flags: tuple[str, ...]
) -> None:
    assert run(*flags, "--yes=true") == 0
    one = next(each for each in account.kept[MONITORS].values() if "spike" in each["name"])
    critical = one["options"]["thresholds"]["critical"]
    one["options"]["thresholds"]["critical"] = 77.0
    one["message"] += "\n@slack-security"
    before = writes(account)
    assert run(*flags, "--yes=true") == 0
    assert f'different   the monitor "{one["name"]}"' in run.out
    assert f"options.thresholds.critical: there 77.0, ours {critical}" in run.out
    assert "- @slack-security" in run.out
    assert "left so; --overwrite=true" in run.out
    assert writes(account) == before
    assert run(*flags, "--yes=true", "--overwrite=true") == 0
    assert one["options"]["thresholds"]["critical"] == critical
    assert writes(account) == before + 1


def test_what_cannot_be_changed_says_how(account: AccountDatadog, run: Run, flags: tuple[str, ...]) -> None:
    assert run(*flags, "--yes=true") == 0
    account.kept[METRICS][pack.METRIC]["data"]["attributes"]["filter"]["query"] = "*"
    assert run(*flags, "--yes=true", "--overwrite=true") == 0
    assert f"different   the metric {pack.METRIC}" in run.out
    assert "DELETE /api/v2/logs/config/metrics/grantex.events" in run.out


def test_pipeline_and_dashboard_are_found_among_others(
    account: AccountDatadog, run: Run, flags: tuple[str, ...]
) -> None:
    assert run(*flags, "--yes=true") == 0
    account.kept[PIPELINES]["1"]["filter"] = {"query": "source:other"}
    account.kept[DASHBOARDS]["1"]["widgets"].pop()
    account.kept[PIPELINES] = {
        "7": {**pack.pipeline(), "name": "Other", "id": "7"},
        **account.kept[PIPELINES],
    }
    assert run(*flags, "--yes=true", "--overwrite=true") == 0
    assert account.kept[PIPELINES]["1"]["filter"] == {"query": pack.SOURCE}
    assert account.kept[DASHBOARDS]["1"]["widgets"] == pack.dashboard()["widgets"]
    assert account.kept[PIPELINES]["7"]["name"] == "Other"


@pytest.mark.parametrize(
    ("variable", "said"),
    [("DD_KEY", "--datadog_api_key: Datadog at "), ("DD_APP", "--datadog_app_key: Datadog at ")],
)
def test_a_key_that_is_refused_is_one_line(
    account: AccountDatadog,
    run: Run,
    flags: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    said: str,
) -> None:
    monkeypatch.setenv(variable, "wrong-credential")
    assert run(*flags, "--yes=true") == 1
    assert run.err.startswith(said)
    assert run.err.count("\n") == 1
    assert "Forbidden" in run.err
    assert "wrong-credential" not in run.err


def test_a_key_without_rights_is_told_which(
    account: AccountDatadog, run: Run, flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DD_APP", READ_ONLY_KEY)
    assert run(*flags, "--yes=true") == 1
    assert "REFUSED     the log pipeline Grantex: --datadog_app_key" in run.out
    assert "one that may logs_write_pipelines" in run.out
    assert "refused, as said above" in run.err
    assert not any(account.kept.values())


def test_the_application_key_is_asked_for(account: AccountDatadog, run: Run, flags: tuple[str, ...]) -> None:
    assert run("datadog", KEYS[0]) == 2
    assert "--datadog_app_key: is missing: beside the API key it takes an application key" in run.err
    assert run("datadog") == 2
    assert "--datadog_api_key: is missing" in run.err
    assert account.requests == []


def test_an_account_that_is_not_there_is_one_line(
    account: AccountDatadog, run: Run, flags: tuple[str, ...]
) -> None:
    account.refuse_connections()
    assert run(*flags) == 1
    assert "could not be reached" in run.err
    assert run.err.count("\n") == 1


def test_printed_it_is_json_and_terraform_and_nobody_is_asked(
    account: AccountDatadog, run: Run, flags: tuple[str, ...], tmp_path: Path
) -> None:
    assert run(*flags, "--print=true", f"--into={tmp_path}") == 0
    assert account.requests == []
    assert json.loads((tmp_path / "monitors.json").read_text()) == pack.monitors()
    assert json.loads((tmp_path / "pipeline.json").read_text()) == pack.pipeline()
    made = hcl2.loads((tmp_path / "main.tf").read_text())
    named = {name.strip('"') for each in made["resource"] for name in each}
    assert named == {"datadog_monitor_json", "datadog_dashboard_json", "datadog_logs_metric"}
    for name in ("monitors.json", "dashboard.json", "metric.json"):
        assert f'file("${{path.module}}/{name}")' in (tmp_path / "main.tf").read_text()
