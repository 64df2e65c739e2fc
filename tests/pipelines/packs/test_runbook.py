"""docs/runbook.md has an entry for each alert, state of the page, message and cause; links lead there."""

from __future__ import annotations

import ast
import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from pipelines.local.verdict import State
from pipelines.packs import datadog, runbook, splunk
from pipelines.packs.detections import CATALOGUE
from transforms.feed.advice import FEED
from transforms.feed.reconnect import EndingKind
from transforms.feed.status import Phase
from transforms.write.advice import ADVICE

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
ANCHORS = {runbook.slug(title) for title in re.findall(r"^#+ (.*)", PAGE, re.M)}
ANCHORS |= set(re.findall(r'<a id="([^"]+)">', PAGE))
WORD = re.compile(r"[a-z][a-z0-9_]+(?=: |$)")
NO_CAUSES = {"storage_write"}  # what begins a text in the same way
RULES = ROOT / "templates" / "packs" / "prometheus"


@functools.cache
def texts(folder: str) -> tuple[str, ...]:
    """Every text constant of the program, f-strings by their pieces; no docstring."""
    found: list[str] = []
    for path in (ROOT / folder).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        by_itself = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
        found += [
            each.value for each in constants if isinstance(each.value, str) and id(each) not in by_itself
        ]
    return tuple(found)


def entries(links: Iterator[str]) -> set[str]:
    return {link.removeprefix(f"{runbook.PAGE}#") for link in links}


def test_the_page_is_what_the_program_makes() -> None:
    assert runbook.page() == PAGE, "make it anew: python -m pipelines.packs"


def test_every_rule_of_prometheus_points_at_its_entry() -> None:
    found = [
        rule
        for path in RULES.glob("*.rules.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]
    assert found
    for rule in found:
        assert rule["annotations"]["runbook_url"] == runbook.url(rule["alert"])
        assert f"### {rule['alert']}\n" in PAGE


def test_every_monitor_and_alert_points_at_its_entry() -> None:
    monitors = re.findall(r"docs/runbook\.md#[\w-]+", json.dumps(datadog.files()))
    alerts = [
        str(settings["description"]).rpartition("Runbook: ")[2]
        for settings in splunk.saved_searches().values()
        if "alert.track" in settings
    ]
    assert monitors
    assert alerts
    named = {runbook.slug(one.name) for one in CATALOGUE if one.alerts}
    assert entries(iter([*monitors, *alerts])) <= ANCHORS & named


def test_every_link_within_the_page_leads_to_an_entry() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= ANCHORS


def test_every_state_of_a_destination_and_of_a_stream_has_an_entry() -> None:
    assert set(runbook.STATES) == set(State)
    assert {runbook.slug(f"stream-{phase.name}") for phase in Phase} <= ANCHORS


def test_every_message_has_an_entry_with_what_to_do() -> None:
    for section in ADVICE.values():
        for each in section.values():
            row = f"{each.seen} | {each.what.removeprefix(': ')} | {each.do or runbook.HEALS} |"
            assert row in PAGE
    for each_of_feed in FEED.values():
        assert f"{each_of_feed.seen} | {each_of_feed.says} | {each_of_feed.do or runbook.HEALS} |" in PAGE


def test_every_way_in_which_a_stream_ends_has_its_message() -> None:
    assert {kind.value for kind in EndingKind} - {"status"} <= set(FEED)


def test_no_entry_is_there_twice() -> None:
    anchors = re.findall(r'<a id="([^"]+)">', PAGE)
    assert len(anchors) == len(set(anchors))


@pytest.mark.parametrize("words", [*runbook.STARTS, *runbook.RUN])
def test_words_that_the_page_quotes_are_the_programs(words: str) -> None:
    said = " ".join((*texts("pipelines/local"), *texts("transforms/feed")))
    assert words in said


@pytest.mark.parametrize("word", runbook.CAUSES)
def test_causes_that_the_page_lists_are_the_programs(word: str) -> None:
    said = {found[0] for text in texts("transforms") if (found := WORD.match(text))}
    assert word in said


def test_no_cause_of_a_dead_letter_is_left_out() -> None:
    begins = (re.match(r"[a-z]+_[a-z0-9_]+(?=: )", text) for text in texts("transforms"))
    words = {found[0] for found in begins if found}
    assert words <= {*runbook.CAUSES, *NO_CAUSES}
