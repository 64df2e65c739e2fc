"""What was tried, as a person and a program read it: what happened, what to do, and nothing secret."""

from __future__ import annotations

import json

import pytest

from pipelines.findings import as_json, report, table
from transforms.preflight import Finding
from transforms.secret import parse_secret
from transforms.write.advice import ANY, HTTP, SPLUNK, Advice, parted

TOKEN = SPLUNK["token"].told("Splunk at https://s:8088", "Invalid token, code 4, status 403")
FOUND = {
    "the feed": [Finding("the API key", True, note="developer dev_1")],
    "splunk": [
        Finding("its health", None, HTTP["busy"].told("Splunk")),
        Finding("the HEC token", False, TOKEN),
    ],
    "kafka": [Finding("retention.ms", True, "The topic keeps 1 h: raise it.")],
}


@pytest.mark.parametrize("advice", [*ANY.values(), *HTTP.values(), *SPLUNK.values()])
def test_what_a_failure_says_falls_into_what_happened_and_what_to_do(advice: Advice) -> None:
    names = {"why": "it is gone", "credential": "the token", "index": "'main'"}
    what, do = parted(advice.told("Splunk", "as it says", **names))
    assert what.startswith("Splunk")
    assert "kept" not in what
    assert do == (f"{advice.do.format_map(names)}." if advice.do else "")


def test_a_text_of_another_kind_is_left_as_it_is() -> None:
    assert parted("It is not there: create it.") == ("It is not there: create it.", "")


def test_without_a_terminal_each_finding_is_one_line() -> None:
    assert table(report(FOUND), width=0).splitlines() == [
        "ok       the feed  the API key    developer dev_1",
        "UNKNOWN  splunk    its health     Splunk is busy or has a fault.",
        "FAILED   splunk    the HEC token  Splunk at https://s:8088 refused the HEC token (Invalid token, "
        "code 4, status 403). To do: enable or correct --splunk_hec_token.",
        "warning  kafka     retention.ms   The topic keeps 1 h: raise it.",
        "",
        "4 tried, 1 ok, 1 failed, of 1 nothing could be told, 1 with a warning.",
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_no_line_is_wider_and_what_to_do_begins_one(width: int) -> None:
    *lines, _ = table(report(FOUND), width=width).splitlines()
    assert max(map(len, lines)) <= width
    assert any(line.strip().startswith("To do: enable or correct") for line in lines)


def test_json_has_it_in_parts() -> None:
    told = json.loads(as_json(report(FOUND)))
    assert told["passed"] is False
    assert [each["result"] for each in told["tried"]] == ["ok", "UNKNOWN", "FAILED", "warning"]
    assert told["tried"][2] == {
        "name": "splunk",
        "what": "the HEC token",
        "result": "FAILED",
        "cause": "Splunk at https://s:8088 refused the HEC token (Invalid token, code 4, status 403).",
        "do": "enable or correct --splunk_hec_token.",
        "note": "",
    }


def test_no_secret_is_in_either() -> None:
    secret = parse_secret("a-token-for-nobody").read()
    found = {"a": [Finding("it", False, f"refused {secret}"), Finding("it", True, note=f"left {secret}")]}
    assert secret not in table(report(found)) + as_json(report(found))
