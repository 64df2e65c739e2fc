"""Rules for a run on a cluster: what has no meaning there, and what it needs instead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from pipelines.cluster import flink
from pipelines.command_line import Arrived
from pipelines.groups.keeping import REMOTE
from pipelines.groups.run import DATAFLOW
from pipelines.parameters import Parameter

if TYPE_CHECKING:
    from pipelines.settings import Settings

# The feed's own settings, which a subscription takes the place of.
OF_THE_FEED = ("feed_api_key", "feed_url", "feed_types", "feed_transport", "feed_connections")


def faults(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived, environ: Mapping[str, str]
) -> Iterator[str]:
    """Whatever cannot be run on `settings.runner`. Beam is imported: it has options of its own."""
    yield from _one_machine(settings, parameters, arrived)
    yield from _dead_letters(settings, parameters, arrived)
    yield from _subscription(settings, arrived)
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
        if name in settings.given and parameter.on_cluster == "refused" and getattr(settings, name):
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


def _subscription(settings: Settings, arrived: Arrived) -> Iterator[str]:
    if not settings.pubsub_subscription:
        return
    if settings.runner != DATAFLOW:
        source = arrived.source("pubsub_subscription")
        yield f"{source}: only --runner=DataflowRunner can read from Pub/Sub; elsewhere read the feed"
    for name in OF_THE_FEED:
        if name in settings.given:
            yield f"{arrived.source(name)}: has no meaning beside --pubsub_subscription; leave one out"
