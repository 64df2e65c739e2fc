"""A password in a URL is in no repr, pickle or error, also without the readers of flags."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest

from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret
from transforms.write.bigquery.destination import BigQuery
from transforms.write.datadog.destination import Datadog
from transforms.write.kafka.destination import Kafka
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

URL = "https://user:s3cr3t-pw@example.com:8443/a"


@pytest.mark.parametrize(
    "make",
    [
        lambda: S3("bucket", endpoint=URL),
        lambda: Splunk(URL, LiteralSecret("token")),
        lambda: Datadog(LiteralSecret("key"), endpoint=URL),
        lambda: BigQuery("p.d.t", "insert_all", endpoint=URL),
        lambda: BigQuery("p.d.t", storage_endpoint=URL),
        lambda: PubSub("projects/my-project/topics/events", endpoint=URL),
        lambda: Kafka("one:9092,user:s3cr3t-pw@two:9092", "topic"),
    ],
)
def test_a_password_in_a_url_is_refused_and_not_shown(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="must not contain a user or password") as refused:
        make()
    assert "s3cr3t-pw" not in str(refused.value)


def test_a_password_in_the_feeds_url_is_left_out() -> None:
    settings = FeedSettings(URL, LiteralSecret("key"))
    assert "s3cr3t-pw" not in repr(settings)
    assert b"s3cr3t-pw" not in pickle.dumps(settings)
    assert settings.url == "https://example.com:8443/a"
