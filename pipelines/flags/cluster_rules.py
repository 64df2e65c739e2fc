"""Rules of a cluster: what cannot be run on one, what does nothing there, and what is missed there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pipelines.cluster import flink
from pipelines.flags.command_line import Arrived
from pipelines.flags.general import DATAFLOW, REMOTE
from pipelines.flags.parameter import Parameter

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

# What a batch is on a cluster: one element of state. Dataflow takes 80 MB of one and refuses more for ever
# ("Dataflow quotas and limits": maximum size of a single element value in Streaming Engine).
MOST_ON_CLUSTER = 64_000_000
# The feed's own settings, which a subscription takes the place of.
OF_THE_FEED = ("feed_api_key", "feed_url", "feed_types", "feed_transport", "feed_connections")


def faults(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived, environ: Mapping[str, str]
) -> Iterator[str]:
    """Whatever cannot be run on `settings.runner`. Beam is imported: it has options of its own."""
    yield from _one_machine(settings, parameters, arrived)
    yield from _dead_letters(settings, parameters, arrived)
    if settings.receipts and settings.runner == DATAFLOW and not settings.receipts.startswith(REMOTE):
        example = f"--receipts={parameters['receipts'].example}"
        yield f"{arrived.source('receipts')}: must begin with gs:// or s3://; for example {example}"
    yield from _subscription(settings, arrived)
    yield from _batches(settings, parameters, arrived)
    if settings.runner == DATAFLOW:
        from pipelines.cluster import dataflow

        yield from dataflow.faults(settings.beam_args, environ)


def warnings(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    """Whatever was given and does nothing there, or is missed there."""
    for name, parameter in parameters.items():
        if name in settings.given and parameter.on_cluster == "ignored":
            yield f"{arrived.source(name)}: is for one machine, {settings.runner} does not use it"
    if settings.runner in flink.RUNNERS:
        yield from flink.warnings(settings.beam_args)


def _one_machine(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    for name, parameter in parameters.items():
        if name in settings.given and parameter.on_cluster == "refused" and settings[name]:
            yield (
                f"{arrived.source(name)}: is for one machine (--runner=DirectRunner); leave it out with "
                f"--runner={settings.runner}"
            )


def _dead_letters(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    """Workers come and go with their disks; other runners than Dataflow may run all on one machine."""
    if settings.dead_letters.startswith(REMOTE) or (settings.dead_letters and settings.runner != DATAFLOW):
        return
    example = f"--dead_letters={parameters['dead_letters'].example}"
    if settings.dead_letters:
        yield f"{arrived.source('dead_letters')}: must begin with gs:// or s3://; for example {example}"
    elif "dead_letters" not in arrived.given:
        yield f"--dead_letters: is missing, and {settings.runner} needs it; for example {example}"


def _batches(settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived) -> Iterator[str]:
    """No batch may be larger than what a cluster keeps."""
    most = f"must be at most 64 MB with --runner={settings.runner}: a cluster keeps each batch in one piece"
    for name, each in parameters.items():
        if each.part_of == "policy" and each.unit == "bytes" and settings[name] > MOST_ON_CLUSTER:
            yield f"{arrived.source(name)}: {most}"
    for destination in settings.custom_destination:
        if destination.policy.max_bytes > MOST_ON_CLUSTER:
            yield f"{arrived.source('custom_destination')}: {destination.name}: max_bytes {most}"


def _subscription(settings: Settings, arrived: Arrived) -> Iterator[str]:
    if not settings.pubsub_subscription:
        return
    if settings.runner != DATAFLOW:
        source = arrived.source("pubsub_subscription")
        yield f"{source}: only --runner=DataflowRunner can read from Pub/Sub; elsewhere read the feed"
    for name in OF_THE_FEED:
        if name in settings.given:
            yield f"{arrived.source(name)}: has no meaning beside --pubsub_subscription; leave one out"
