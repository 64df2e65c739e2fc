"""The rendered files are what the definitions make, and each definition is whole."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from pipelines.packs import page
from pipelines.packs.__main__ import main, write
from pipelines.packs.detection import LANGUAGES, THRESHOLD
from pipelines.packs.detections import CATALOGUE, NOT_SHOWN, named
from pipelines.packs.render import rendered

ROOT = Path(__file__).parents[3]
COMMAND = "run: python -m pipelines.packs"
WITH_MODELS = sys.version_info >= (3, 11)
# Names that the service's users know (its guides).
KNOWN = {"velocity_spike", "scope_escalation", "unknown_agent", "token_replay", "off_hours_activity"}
KNOWN |= {"high_failure_rate", "concurrent_sessions", "delegation_depth", "budget_overspend", "geo_anomaly"}


def test_files_in_the_tree_are_what_the_definitions_make() -> None:
    for name, text in rendered(with_grafana=WITH_MODELS).items():
        path = ROOT / name
        assert path.exists(), f"{name} is missing; {COMMAND}"
        assert path.read_text(encoding="utf-8") == text, f"{name} is out of date; {COMMAND}"


def test_no_file_is_left_of_a_former_definition() -> None:
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "templates/packs").rglob("*") if path.is_file()}
    made = set(rendered(with_grafana=WITH_MODELS))
    assert {name for name in there - made if not name.startswith("templates/packs/grafana/")} == set()


def test_the_page_says_how_each_pack_is_set_up_from_files_that_are_there() -> None:
    set_up = page.page().partition("\n## Set up\n\n")[2].partition("\n## ")[0]
    told = [line.split(" | ")[0].removeprefix("| ") for line in set_up.splitlines() if line.count(" | ") == 2]
    assert told[1:] == ["Splunk", "Datadog", "BigQuery", "Athena", "Prometheus", "Grafana"]
    named = re.findall(r"`(templates/packs/[^`]+)`", set_up)
    assert len(named) >= len(told[1:])
    assert [name for name in named if not (ROOT / name).exists()] == []
    for body in re.findall(r"`(\w+\.json)`", set_up):
        assert (ROOT / "templates/packs/datadog" / body).exists()
    assert "A Datadog monitor counts by the event's own time" in set_up


def test_rendering_into_a_directory_removes_what_is_no_longer_made(tmp_path: Path) -> None:
    old = tmp_path / "templates/packs/bigquery/gone.sql"
    old.parent.mkdir(parents=True)
    old.write_text("SELECT 1")
    mine = tmp_path / "templates/mine.sql"
    mine.write_text("SELECT 2")
    write(tmp_path, {"templates/packs/bigquery/kept.sql": "SELECT 3\n"})
    assert not old.exists()
    assert mine.exists()
    assert (tmp_path / "templates/packs/bigquery/kept.sql").read_text() == "SELECT 3\n"


def test_an_unknown_argument_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 2
    assert "python -m pipelines.packs" in capsys.readouterr().err


def test_the_catalogue_has_eighteen_entries_with_names_of_their_own() -> None:
    assert len(CATALOGUE) == len({one.name for one in CATALOGUE}) == 18


@pytest.mark.parametrize("name", [one.name for one in CATALOGUE])
def test_an_entry_is_said_in_every_language_or_says_why_not(name: str) -> None:
    one = named(name)
    assert one.title
    assert one.why.endswith(".")
    assert one.todo.endswith(".")
    for language in LANGUAGES:
        if language == "prometheus" and not one.rules:
            continue  # of events only the job's own are counted there
        said = language in one.languages()
        assert said != (language in one.without), f"{language}: either the thing or the reason"


@pytest.mark.parametrize("name", [one.name for one in CATALOGUE])
def test_every_threshold_is_used(name: str) -> None:
    one = named(name)
    texts = [one.sql, one.splunk.spl if one.splunk else "", repr(one.datadog), repr(one.rules)]
    assert set(THRESHOLD.findall(" ".join(texts))) == set(one.thresholds)


def test_names_of_the_services_guides_are_mapped_or_said_to_be_impossible() -> None:
    mapped = {name for one in CATALOGUE for name in one.known_as}
    assert mapped | set(NOT_SHOWN) == KNOWN
    assert not mapped & set(NOT_SHOWN)


def test_no_placeholder_is_left_in_a_file() -> None:
    left = [name for name, text in rendered(with_grafana=False).items() if re.search(r"@\{\w+", text)]
    assert left == []
