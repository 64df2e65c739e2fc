"""replay as one job on a cluster's runner: everything arrives once, and the table says so."""

from __future__ import annotations

import threading
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from pipelines import replay
from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.events import generate
from pipelines.practice.splunk import PracticeSplunk
from tests.servers import prism

TOKEN = "practice-token-of-this-test-0000"
pytestmark = pytest.mark.own_network(needs=prism.program)


def test_one_job_with_all_destinations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", TOKEN)
    monkeypatch.delenv("GRANTEX_TEST_REPORTS", raising=False)
    events = list(islice(generate(3), 3000))
    (tmp_path / "archive").mkdir()
    for number in range(6):
        part = [*events[number * 500 : number * 500 + 500], events[0]]
        (tmp_path / "archive" / f"{number}.ndjson").write_bytes(b"\n".join([*part, b""]))
    with PracticeSplunk(token=TOKEN) as splunk, PracticeDatadog(key=TOKEN) as datadog:
        asked = ["--runner=PrismRunner", f"--prism_location={prism.program()}", "--from=files:archive"]
        asked += [f"--splunk_hec_url={splunk.url}", "--splunk_hec_token=env:TOKEN"]
        asked += [f"--datadog_endpoint={datadog.url}", "--datadog_api_key=env:TOKEN"]
        assert replay.run([*asked, "--dead_letters=letters"], threading.Event()) == 0
        assert Counter(bytes(one.event) for one in splunk.events) == Counter(events)
        assert Counter(one.message.encode() for one in datadog.events) == Counter(events)
    said = capsys.readouterr().out
    assert "3,006 events" in said
    assert said.count("3,000") == 2
    assert said.count("6 repeats") == 2
