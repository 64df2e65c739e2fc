"""Destinations come and go between runs, by their flags: a new one starts at the end, a removed one waits."""

from __future__ import annotations

import json
from itertools import islice

from pipelines.practice.datadog import PracticeDatadog
from pipelines.practice.events import generate
from pipelines.practice.s3 import PracticeS3
from tests.integration.evidence import ids_in_files
from tests.integration.job import World

SPLUNK_OFF = {"splunk_hec_url": None, "splunk_hec_token": None, "splunk_max_age": None}


def test_a_new_one_starts_at_the_end_and_a_removed_one_finds_its_events_again(around: World) -> None:
    with PracticeDatadog() as datadog, PracticeS3() as s3:
        keys = {"AWS_ACCESS_KEY_ID": s3.access_key, "AWS_SECRET_ACCESS_KEY": s3.secret_key}
        around.environment = {**around.environment, **keys, "DATADOG_KEY": datadog.key}
        datadog_on = {"datadog_api_key": "env:DATADOG_KEY", "datadog_endpoint": datadog.url}
        s3_on = {"s3_bucket": s3.bucket, "s3_endpoint": s3.url, "s3_max_age": 0.2}

        published: list[str] = []

        def run(*names: str, **flags: object) -> str:
            """Twenty events, delivered to `names`; the log."""
            events = list(islice(generate(), 20))
            published.extend(json.loads(event)["id"] for event in events)
            with around.live_job(**SPLUNK_OFF, **flags) as job:
                around.feed.publish_many(events)
                job.wait_until(lambda: len(ids_in_files(around.out)) == len(published), "they came")
                job.wait_until_settled("files", *names)
                assert job.drain() == 0
                return job.log

        run("datadog", **datadog_on, datadog_max_age=0.2)
        assert datadog.count == 20
        log = run("s3", **s3_on)
        assert "datadog is not among the destinations any more" in log
        assert (datadog.count, s3.count) == (20, 20)
        run("datadog", "s3", **datadog_on, **s3_on, datadog_max_age=0.2)
        assert (datadog.count, s3.count) == (60, 40)
        assert (datadog.repeats, s3.repeats) == (0, 0)
        assert set(datadog.ids) == set(published[:60]), "those that came while it was away are there, too"
        assert set(s3.ids) == set(published[20:60])
