"""`check` against the real servers: what it says of each thing that is wrong, as docs/check.md shows it.

`CHECK_PAGE=docs/check.md python -m pytest tests/integration/test_check.py` writes the page's table anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.findings import Tried, report
from pipelines.preflight import Preflight
from tests.integration.check_cases import CASES, Case, Place
from tests.servers.outgoing_proxy import OutgoingProxy, outgoing_proxy
from transforms.preflight import Finding, Try
from transforms.write.kafka import check as kafka_check

PAGE = Path(__file__).parents[2] / "docs" / "check.md"
HEAD = "| whose way | what is wrong | `check` says |\n|---|---|---|\n"
PATIENCE = 15.0
# The real server (tests/servers/shared.py) of most of a kind: its cases share a worker with its other tests.
SERVERS = {
    "Kafka": "broker",
    "BigQuery": "emulator",
    "Pub/Sub": "pubsub_server",
    "S3": "seaweedfs",
    "This machine": "moto_server",
}


def found(tried: Try) -> list[Tried]:
    """As the program does it."""
    running = Preflight({"it": tried}, tell=lambda name, found: None)
    running.start()
    running.wait(PATIENCE)
    return report(running.found()).tried


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[str, str]]:
    """Of the cases that have run; in the end they are the page's, where somebody asked for it."""
    made: dict[str, str] = {}
    yield made
    if os.environ.get("CHECK_PAGE"):
        page = Path(os.environ["CHECK_PAGE"])
        before, _, rest = page.read_text().partition(HEAD)
        lines = rest.splitlines(keepends=True)
        known = {tuple(line.split(" | ")[:2]): line for line in lines if line.startswith("| ")}
        there = [made.get(each.name) or known.get((f"| {each.of}", each.wrong), "") for each in CASES]
        page.write_text(before + HEAD + "".join(there))


@pytest.fixture(scope="module")
def asking_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OutgoingProxy]:
    """One that wants a sign-in."""
    with outgoing_proxy(tmp_path_factory.mktemp("proxy"), login="somebody:else") as proxy:
        yield proxy


def row(case: Case, said: Tried, place: Place) -> str:
    """What the page has, with what differs each time left out."""
    text = f"{said.cause} To do: {said.do}" if said.do else said.cause
    return f"| {case.of} | {case.wrong} | {said.result} {said.what}: {general(text, place)} |\n"


def general(text: str, place: Place) -> str:
    text = text.replace(str(place.directory), "/DIRECTORY")
    text = re.sub(r"127\.0\.0\.1(:\d+)?", "HOST", text)
    text = re.sub(r"\b\d+\.\d GiB", "N GiB", text)
    text = re.sub(r"\b\d+ms\b", "N ms", text)
    text = re.sub(r"\b\d+/\d+ brokers", "N/N brokers", text)
    text = re.sub(r" \(_ssl\.c:\d+\)", "", text)
    text = re.sub(r"\b(59\d|60\d) s\b", "600 s", text)
    return re.sub(r"^\s+|\s+$", "", text).replace("|", "\\|")


def parameter(case: Case) -> Any:
    marks = [pytest.mark.xdist_group(SERVERS[case.of])] if case.of in SERVERS else []
    return pytest.param(case, id=case.name, marks=marks)


@pytest.mark.parametrize("case", [parameter(each) for each in CASES])
def test_what_is_wrong_is_told_with_what_to_do(
    case: Case,
    rows: dict[str, str],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place(tmp_path, monkeypatch, request.getfixturevalue)
    for name, value in {"AWS_CONFIG_FILE": os.devnull, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    with case.start(place) as tried:
        told = found(tried)
    bad = [each for each in told if each.result != "ok"]
    assert bad, told
    said = bad[0]
    assert said.result == case.result, said
    assert case.says in f"{said.cause} {said.do}"
    for secret in place.secrets:
        assert secret not in str(told)
    rows[case.name] = made = row(case, said, place)
    if not os.environ.get("CHECK_PAGE"):
        assert made in PAGE.read_text(), f"docs/check.md is out of date: {__doc__}"


def test_the_page_has_no_row_that_no_test_stands_for() -> None:
    lines = PAGE.read_text().partition(HEAD)[2].splitlines()
    table = lines[: next(i for i, line in enumerate([*lines, ""]) if not line.startswith("|"))]
    assert [tuple(line.split(" | ")[:2]) for line in table] == [
        (f"| {each.of}", each.wrong) for each in CASES
    ]


def test_brokers_that_tell_nothing_but_topics_are_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """librdkafka's own cluster, which the demo has, knows no request of an administrator's."""
    from pipelines.local.demo import PracticeKafka
    from transforms.write.kafka.destination import Kafka

    monkeypatch.setattr(kafka_check, "LOOK_SECONDS", 0.5)
    with PracticeKafka() as cluster:
        cluster.make("events")
        assert list(Kafka(cluster.bootstrap_servers, "events").check()) == [Finding("topic events", True)]
