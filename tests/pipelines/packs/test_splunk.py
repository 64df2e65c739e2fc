"""The Splunk app: whole, as the vendor's AppInspect wants it, and free of the guides' mistakes.

What the searches find nobody could try here: `make verify-splunk` does, on a Splunk.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipelines.packs import splunk
from pipelines.packs.detection import Detection
from pipelines.packs.detections import CATALOGUE
from tests.servers import appinspect

APP = Path(__file__).parents[3] / "templates" / "packs" / "splunk" / "grantex_beam"
ALL = {**splunk.saved_searches()}
IN_SPL = [one for one in CATALOGUE if one.splunk is not None]


def read(path: Path) -> Mapping[str, Mapping[str, str]]:
    """A .conf file as Splunk reads it: a line that ends with a backslash goes on."""
    stanzas: dict[str, dict[str, str]] = {}
    for line in path.read_text().replace("\\\n", "\x00").splitlines():
        if line.startswith("["):
            stanza = stanzas.setdefault(line[1:-1], {})
        elif line.strip():
            name, _, value = line.partition(" = ")
            stanza[name] = value.replace("\x00", "\n")
    return stanzas


def test_saved_searches_are_read_back_as_they_were_written() -> None:
    found = read(APP / "default" / "savedsearches.conf")
    squeezed = {
        name: {key: value.replace(" \n", "\n") for key, value in settings.items()}
        for name, settings in found.items()
    }
    assert squeezed == ALL


@pytest.mark.parametrize("name", ALL)
def test_a_search_uses_macros_that_there_are(name: str) -> None:
    assert set(splunk.MACRO.findall(ALL[name]["search"])) <= set(splunk.MACROS)
    assert ALL[name]["search"].startswith("`grantex_index`")


@pytest.mark.parametrize("name", [*ALL, *(panel[0] for row in splunk.PANELS for panel in row)])
def test_a_search_makes_none_of_the_guides_mistakes(name: str) -> None:
    panels = {panel[0]: panel[1] for row in splunk.PANELS for panel in row}
    search = ALL[name]["search"] if name in ALL else panels[name]
    assert "spath" not in search, "_json makes fields already; a second time doubles the values"
    assert "event." not in search, "HEC's wrapper is not in the event"
    for clause in re.findall(r"\| where [^|]*", search):
        assert '*"' not in clause, "`where` knows no wildcards"
    expanded = splunk.expanded(search)
    assert "`" not in expanded
    assert "dedup event_id" in expanded or "dc(event_id)" in expanded, "delivery is at least once"


def test_without_the_app_a_search_names_the_index() -> None:
    search = splunk.expanded("`grantex_index` type=x | `grantex_once`", "audit", "mine")
    assert search.startswith('index="audit" source="mine" type=x | eval event_id=')


@pytest.mark.parametrize("one", [one for one in IN_SPL if one.alerts], ids=lambda one: one.name)
def test_an_alert_runs_and_does_not_repeat_itself(one: Detection) -> None:
    settings = splunk.saved_search(one)
    assert settings["enableSched"] == "1"
    assert settings["alert.suppress"] == "1"
    fields = settings["alert.suppress.fields"].split(",")
    spl = splunk.spl(one)
    for field in fields:
        assert re.search(rf"\b{field}\b", spl), f"{field} is no column of its rows"


@pytest.mark.parametrize("one", [one for one in IN_SPL if not one.alerts], ids=lambda one: one.name)
def test_a_report_is_not_scheduled(one: Detection) -> None:
    assert "cron_schedule" not in splunk.saved_search(one)


def test_alerts_look_at_what_was_indexed_since_their_last_look() -> None:
    spike = ALL["Grantex - Revocation spike"]
    assert "_index_earliest=-11m@m _index_latest=-1m@m" in spike["search"], (
        "two looks' time: none is cut in two"
    )
    cascade = ALL["Grantex - Cascade revocation"]
    assert "_index_earliest=-6m@m _index_latest=-1m@m" in cascade["search"]
    assert cascade["cron_schedule"] == "1-59/5 * * * *", "a minute after the owners of grants"


def test_field_aliases_have_the_guides_names_and_touch_our_source_alone() -> None:
    ((stanza, settings),) = read(APP / "default" / "props.conf").items()
    assert stanza == "source::grantex"
    aliases = set(re.findall(r"AS (\w+)", " ".join(settings.values())))
    names = {f"grantex_{name}" for name in ("event_type", "grant_id", "agent_id", "principal_id")}
    assert aliases >= names


def test_the_dashboard_has_the_guides_panels_and_is_well_formed() -> None:
    form = ElementTree.parse(APP / "default/data/ui/views/grantex_overview.xml").getroot()
    assert form.get("version") == "1.1"
    kinds = [option.text for option in form.iter("option") if option.get("name") == "charting.chart"]
    assert kinds == ["area", "pie", "line", "bar"]
    assert len(form.findall(".//panel")) == 6


@pytest.mark.servers
def test_appinspect_finds_no_fault(tmp_path: Path) -> None:
    report = appinspect.inspect(APP, tmp_path / "report.json")
    found = {
        f"{check['result']} {check['name']}: {[one['message'] for one in check['messages']]}"
        for part in report["reports"]
        for group in part["groups"]
        for check in group["checks"]
        if check["result"] in ("failure", "error", "warning")
    }
    # Every app with a lookup of its own is told so: it has looked.
    told = "App contains collections.conf. No action required. File: default/collections.conf"
    assert found == {f"warning check_collections_conf: ['{told}']"}
    assert report["summary"]["success"] > 50
