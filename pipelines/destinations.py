"""What the settings turn on: the feed and the destinations."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines import kafka_settings
from pipelines.settings import Settings
from transforms.feed.request import FeedSettings
from transforms.write.bigquery import BigQuery
from transforms.write.contract import Destination
from transforms.write.files import Files
from transforms.write.kafka import Kafka
from transforms.write.splunk import Splunk


def feed_settings(settings: Settings) -> FeedSettings:
    """The feed to read."""
    assert settings.feed_api_key is not None  # `parse` asks for it
    return FeedSettings(
        url=settings.feed_url,
        api_key=settings.feed_api_key,
        types=settings.feed_types,
        ca_file=_text(settings.ca_file),
    )


def destinations(settings: Settings) -> Sequence[Destination]:
    """Every destination whose first flag was given."""
    found: list[Destination] = []
    if settings.splunk_hec_url:
        assert settings.splunk_hec_token is not None  # `parse` asks for it
        found.append(
            Splunk(
                url=settings.splunk_hec_url,
                token=settings.splunk_hec_token,
                index=settings.splunk_index,
                source=settings.splunk_source,
                sourcetype=settings.splunk_sourcetype,
                compression=settings.http_compression,
                ca_file=_text(settings.ca_file),
                policy=settings.batch_policy("splunk"),
            )
        )
    if settings.kafka_bootstrap_servers:
        found.append(
            Kafka(
                bootstrap_servers=settings.kafka_bootstrap_servers,
                topic=settings.kafka_topic,
                config=kafka_settings.together(settings.kafka_config),
                policy=settings.batch_policy("kafka"),
            )
        )
    if settings.bigquery_table:
        found.append(
            BigQuery(
                table=settings.bigquery_table,
                method=settings.bigquery_method,
                schema=settings.bigquery_schema,
                endpoint=settings.bigquery_endpoint or None,
                storage_endpoint=settings.bigquery_storage_endpoint or None,
                ca_file=_text(settings.ca_file),
                policy=settings.batch_policy("bigquery"),
            )
        )
    if settings.files_dir:
        found.append(Files(dir=str(settings.files_dir), policy=settings.batch_policy("files")))
    found += settings.custom_destination
    return found


def label(destination: Destination) -> str:
    """A destination's part of the graph's labels: its class, or its own name where that is another one
    (two destinations of one class must not share labels)."""
    kind = type(destination)
    if destination.name == kind.name:
        return kind.__name__
    return "".join(word.capitalize() for word in destination.name.split("_"))


def _text(path: object) -> str | None:
    return None if path is None else str(path)
