"""replay between real services: out of S3, Cloud Storage and BigQuery, into S3, once over an interruption."""

from __future__ import annotations

import gzip
import json
import threading
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from pipelines import replay
from pipelines.practice.events import generate
from tests.integration.evidence import lines_in_files
from tests.pipelines.test_replay import stopped
from tests.servers import gcs, landing
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.seaweedfs import SeaweedFS
from transforms.event import Batch
from transforms.parse import parse_frames
from transforms.write.bigquery.destination import BigQuery

EVENTS = list(islice(generate(5, 1_772_366_400.0), 3000))
HOUR = "dt=2026-03-01/hour=12"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GRANTEX_TEST_REPORTS", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


def run(argv: Sequence[str]) -> int:
    return replay.run(argv, threading.Event())


def flags(place: landing.Landing, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return [f"--{name}={value}" for name, value in place.flags.items()]


def test_from_one_bucket_to_another_each_event_once_although_it_is_interrupted(
    seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    to = landing.s3(seaweedfs, "replay-copy")
    asked = [*flags(to, monkeypatch), "--s3_max_events=100", f"--from_endpoint={seaweedfs.endpoint}"]
    client = seaweedfs.client()
    client.create_bucket(Bucket="replay-from")
    for number in range(6):
        body = gzip.compress(b"\n".join([*EVENTS[number * 500 : number * 500 + 500], b""]))
        client.put_object(Bucket="replay-from", Key=f"kept/{HOUR}/{number}.ndjson.gz", Body=body)
    asked += ["--from=s3://replay-from/kept"]

    def some() -> bool:
        found = client.list_objects_v2(Bucket="replay-copy", MaxKeys=5)
        return int(found.get("KeyCount", 0)) >= 5

    assert stopped([*asked, "--max_rate=1500"], some) == 1
    assert len(list(to.read())) < 3000
    assert run(asked) == 0
    assert Counter(raw for _, raw in to.read()) == Counter(EVENTS)


def test_out_of_google_cloud_storage(tmp_path: Path) -> None:
    with gcs.running(tmp_path / "gcs.log") as storage:
        storage.create_bucket("replay-from")
        for number, some in enumerate((EVENTS[:100], EVENTS[100:300])):
            body = gzip.compress(b"\n".join([*some, b""]))
            storage.put("replay-from", f"kept/{HOUR}/{number}.ndjson.gz", body)
        asked = ["--from=gs://replay-from/kept", f"--from_endpoint={storage.endpoint}"]
        assert run([*asked, "--files_dir=copy"]) == 0
    assert Counter(lines_in_files(tmp_path / "copy")) == Counter(EVENTS[:300])


def test_out_of_bigquery_and_the_table_says_what_was_rebuilt(
    emulator: Emulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = f"{PROJECT}.events.replay_from"
    settings = BigQuery(table, endpoint=emulator.rest, storage_endpoint=emulator.storage)
    writer = settings.open()
    assert writer.write(Batch(parse_frames(EVENTS[:300], 0.0)[0])) is None
    writer.close()
    asked = [f"--from=bigquery:{table}", f"--from_endpoint={emulator.rest}", "--files_dir=copy"]
    assert run([*asked, "--types=grant.*"]) == 0
    wanted = [json.loads(one) for one in EVENTS[:300] if b'"type":"grant.' in one]
    found = {one["id"]: one for one in map(json.loads, lines_in_files(tmp_path / "copy"))}
    assert found == {one["id"]: one for one in wanted}
    assert "300 of them rebuilt from columns" in capsys.readouterr().out
