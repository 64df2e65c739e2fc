"""WriteTo<Destination>: one line a destination, each with the settings of its destination as arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination
from transforms.write.datadog.destination import Datadog
from transforms.write.files.destination import Files
from transforms.write.gcs.destination import GCS
from transforms.write.kafka.destination import Kafka
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk
from transforms.write.write_to import WriteTo

P = ParamSpec("P")


def _sink(destination: Callable[P, Destination]) -> Callable[P, WriteTo]:
    """A transform with the arguments of `destination`, so that the two cannot drift apart."""
    name = f"WriteTo{destination.__name__}"

    def make(*args: P.args, **kwargs: P.kwargs) -> WriteTo:
        return WriteTo(destination(*args, **kwargs))

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"{WriteTo.__doc__}\n{destination.__doc__}"
    return make


WriteToBigQuery = _sink(BigQuery)
WriteToDatadog = _sink(Datadog)
WriteToFiles = _sink(Files)
WriteToGCS = _sink(GCS)
WriteToKafka = _sink(Kafka)
WriteToPubSub = _sink(PubSub)
WriteToS3 = _sink(S3)
WriteToSplunk = _sink(Splunk)
