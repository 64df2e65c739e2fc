"""What the settings turn on: the feed and the destinations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pipelines.groups import bigquery, datadog, files, kafka, pubsub, s3, splunk
from pipelines.parameters import Group
from pipelines.settings import Settings
from transforms.feed.request import FeedSettings
from transforms.write.contract import Destination

# In the order in which they are shown.
BY_GROUP: Mapping[Group, Callable[[Settings], Destination]] = {
    bigquery.GROUP: bigquery.destination,
    s3.GROUP: s3.destination,
    datadog.GROUP: datadog.destination,
    splunk.GROUP: splunk.destination,
    kafka.GROUP: kafka.destination,
    pubsub.GROUP: pubsub.destination,
    files.GROUP: files.destination,
}


def feed_settings(settings: Settings) -> FeedSettings:
    """The feed to read."""
    assert settings.feed_api_key is not None  # `parse` asks for it
    return FeedSettings(
        url=settings.feed_url,
        api_key=settings.feed_api_key,
        types=settings.feed_types,
        ca_file=settings.ca_file_text,
    )


def destinations(settings: Settings) -> Sequence[Destination]:
    """Every destination whose first flag was given."""
    on = [make(settings) for group, make in BY_GROUP.items() if getattr(settings, group.first)]
    return [*on, *settings.custom_destination]
