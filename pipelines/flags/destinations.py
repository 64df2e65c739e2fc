"""A flag for each setting of a destination, and the destinations that the flags ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from pipelines.flags import custom
from pipelines.flags.parameter import Group, Parameter, parameter
from transforms.feed.request import FeedSettings
from transforms.readers import each_of
from transforms.setting import BadSettings, Setting, made, setting, settings_of, worded
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination
from transforms.write.datadog.destination import Datadog
from transforms.write.files.destination import Files
from transforms.write.gcs.destination import GCS
from transforms.write.kafka.destination import Kafka
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

# In the order in which they are shown.
KINDS: Sequence[type[Destination]] = (BigQuery, S3, GCS, Datadog, Splunk, Kafka, PubSub, Files)


@dataclass(frozen=True, kw_only=True)
class CustomParameters:
    group: ClassVar[Group] = Group("Your own destinations", destination="custom", first="custom_destination")

    custom_destination: tuple[Destination, ...] = setting(
        "A destination of your own: module, class, its name here and its settings.",
        (),
        read=each_of(custom.load),
        placeholder="MODULE:CLASS?name=NAME&KEY=VALUE",
        secret=True,
        repeatable=True,
        example="mypackage.audit:Audit?name=audit&url=https://audit.example.com",
    )


def flags_of(kind: type[Destination]) -> dict[str, Setting]:
    """The settings of a built-in destination by flag ("splunk_hec_url"); not those that all share."""
    told = [each for each in settings_of(kind) if each.declared and not each.shared]
    return {f"{kind.name}_{each.called or each.name}": each for each in told}


def group_of(kind: type[Destination]) -> Group:
    """A destination is on when the flag of its first setting is given."""
    return Group(kind.title, destination=kind.name, first=next(iter(flags_of(kind))))


def parameters_of(kind: type[Destination]) -> Iterator[Parameter]:
    """A parameter for each flag."""
    group, called = group_of(kind), _flag(kind)
    for name, each in flags_of(kind).items():
        parent = (called(each.parent[0]), *each.parent[1:]) if each.parent else ()
        # The first one is not needed: without it the destination is off.
        yield parameter(each, group, name=name, parent=parent, required=each.required and name != group.first)


def _flag(kind: type[Destination]) -> Callable[[str], str]:
    """From a field's name to its flag's."""
    names = {each.name: name for name, each in flags_of(kind).items()}
    return lambda field: names.get(field, field)


def feed_settings(settings: Settings) -> FeedSettings:
    """The feed to read."""
    assert settings.feed_api_key is not None  # `parse` asks for it
    return FeedSettings(
        url=settings.feed_url,
        api_key=settings.feed_api_key,
        types=settings.feed_types,
        transport=settings.feed_transport,
        way_out=settings.way_out,
    )


def destinations(settings: Settings) -> Sequence[Destination]:
    """Every destination whose first flag was given."""
    on = [_destination(settings, kind) for kind in KINDS if settings[group_of(kind).first]]
    return [*on, *(_sharing(each, settings) for each in settings.custom_destination)]


def _destination(settings: Settings, kind: type[Destination]) -> Destination:
    told = list(settings_of(kind))
    values = {each.name: settings[name] for name, each in flags_of(kind).items()}
    return made(kind, told, {**values, **_shared(told, settings)})


def _sharing(own: Destination, settings: Settings) -> Destination:
    """A destination of one's own with what all share, where it has not been given something else."""
    told = {each.name: each for each in settings_of(type(own))}
    changes = {
        name: value
        for name, value in _shared(told.values(), settings).items()
        if not told[name].part_of and getattr(own, name) == told[name].default
    }
    if own.asked.pseudonym_key is None and settings.pseudonym_key is not None:
        changes["asked"] = replace(own.asked, pseudonym_key=settings.pseudonym_key)
    return custom.changed(own, **changes) if changes else own


def _shared(told: Iterable[Setting], settings: Settings) -> dict[str, Any]:
    """Values of the settings that follow one of the job's."""
    everybodys: Mapping[str, Any] = {
        "way_out": settings.way_out,
        "ca_file": settings.way_out.ca_file,  # for destinations of one's own
        "http_compression": settings.http_compression,
        "pseudonym_key": settings.pseudonym_key,
    }
    return {each.name: everybodys[each.shared] for each in told if each.shared in everybodys}


def faults(settings: Settings, source: Callable[[str], str], bad: frozenset[str]) -> Iterator[str]:
    """What the settings of one destination may not be together.

    source: how a parameter was given, "--s3_role_arn" or "GRANTEX_S3_ROLE_ARN". bad: those whose own fault
    is told already.
    """
    for kind in KINDS:
        flags = flags_of(kind)
        missing = [name for name, each in flags.items() if each.required and settings[name] is None]
        if not missing and bad.isdisjoint(flags):
            yield from _faults(settings, kind, source)


def _faults(settings: Settings, kind: type[Destination], source: Callable[[str], str]) -> Iterator[str]:
    flag = _flag(kind)
    try:
        found = list(_destination(settings, kind).faults())
    except BadSettings as error:
        found = error.faults
    except ValueError as error:  # what a class refuses without naming a field
        yield f"{source(group_of(kind).first)}: {error}"
        return
    yield from worded(found, lambda field: f"--{flag(field)}", lambda field: source(flag(field)))
