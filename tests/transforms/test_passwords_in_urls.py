"""A password or token in a URL is in no repr, pickle or error, also without the readers of flags."""

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

USER = "https://user:s3cr3t-pw@example.com:8443/a"
QUERY = "https://example.com:8443/a?token=s3cr3t-pw"
FRAGMENT = "https://example.com:8443/a#s3cr3t-pw"


@pytest.mark.parametrize("url", [USER, QUERY, FRAGMENT])
@pytest.mark.parametrize(
    "make",
    [
        lambda url: S3("bucket", endpoint=url),
        lambda url: Splunk(url, LiteralSecret("token")),
        lambda url: Datadog(LiteralSecret("key"), endpoint=url),
        lambda url: BigQuery("p.d.t", "insert_all", endpoint=url),
        lambda url: BigQuery("p.d.t", storage_endpoint=url),
        lambda url: PubSub("projects/my-project/topics/events", endpoint=url),
        lambda url: Kafka(f"one:9092,{url}", "topic"),
    ],
)
def test_a_secret_in_a_url_is_refused_and_not_shown(make: Callable[[str], object], url: str) -> None:
    with pytest.raises(ValueError, match="would end up in logs") as refused:
        make(url)
    assert "s3cr3t-pw" not in str(refused.value)


@pytest.mark.parametrize("url", [USER, QUERY, FRAGMENT, QUERY.replace("/a?", "?")])
def test_a_secret_in_the_feeds_url_is_left_out(url: str) -> None:
    settings = FeedSettings(url, LiteralSecret("key"))
    assert "s3cr3t-pw" not in repr(settings)
    assert b"s3cr3t-pw" not in pickle.dumps(settings)
    assert settings.url in ("https://example.com:8443/a", "https://example.com:8443")
