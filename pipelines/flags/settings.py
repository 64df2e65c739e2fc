"""Settings: all parameters of pipelines/groups, read from flags and environment and checked together."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.flags import command_line, manual, rules
from pipelines.flags.destinations import CustomParameters
from pipelines.flags.general import (
    FeedParameters,
    HttpParameters,
    KeepingParameters,
    RunParameters,
    WatchingParameters,
)
from pipelines.flags.parameter import Parameter, declared
from pipelines.groups.bigquery import BigQueryParameters
from pipelines.groups.datadog import DatadogParameters
from pipelines.groups.files import FilesParameters
from pipelines.groups.kafka import KafkaParameters
from pipelines.groups.pubsub import PubSubParameters
from pipelines.groups.s3 import S3Parameters
from pipelines.groups.splunk import SplunkParameters
from transforms.batch import BatchPolicy
from transforms.secret import redact
from transforms.way_out import WayOut


class BadParameters(Exception):
    """What was given cannot be run. `lines` say it to a person, one fault each, without secrets."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings(
    # In the order in which help and README tell them.
    RunParameters,
    FeedParameters,
    KeepingParameters,
    WatchingParameters,
    HttpParameters,
    BigQueryParameters,
    S3Parameters,
    DatadogParameters,
    SplunkParameters,
    KafkaParameters,
    PubSubParameters,
    FilesParameters,
    CustomParameters,
):
    """What a run was asked to do; "" and None stand for what was not given and has no default."""

    given: frozenset[str] = frozenset()  # names that a flag or the environment set
    # Beam's own flags, checked and nothing else, for PipelineOptions.
    beam_args: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()  # to be logged at the start

    @property
    def way_out(self) -> WayOut:
        """What feed and destinations go out through, and with."""
        paths = (self.ca_file, self.client_certificate, self.client_key)
        return WayOut(self.http_proxy, *(None if path is None else str(path) for path in paths))

    @property
    def ca_file_text(self) -> str | None:
        """`ca_file` as librdkafka takes it, which knows neither proxies nor our certificate."""
        return None if self.ca_file is None else str(self.ca_file)

    def batch_policy(self, destination: str) -> BatchPolicy:
        """The policy of `destination` ("splunk", "files")."""
        return BatchPolicy(
            *(getattr(self, f"{destination}_{end}") for end in ("max_events", "max_bytes", "max_age"))
        )

    def __repr__(self) -> str:
        shown = [f"{each}={getattr(self, each)!r}" for each in PARAMETERS]
        beam = [arg.partition("=")[0] for arg in self.beam_args]
        return redact(f"Settings({', '.join(shown)}, beam_args={beam})")


PARAMETERS: Mapping[str, Parameter] = declared(Settings)


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """What the arguments (without the program's name) and the environment ask for.

    Raises BadParameters with every fault found, and SystemExit(0) after `--help` and `--version`.
    """
    if "--help" in argv or "-h" in argv:
        print(manual.help_text(PARAMETERS))
        raise SystemExit(0)
    if "--version" in argv:
        print(manual.version())
        raise SystemExit(0)
    arrived = command_line.read(argv, environ, PARAMETERS)
    read, bad, lines = _values(arrived)
    settings = _with_given(Settings(**read, beam_args=arrived.beam_args), frozenset(arrived.given))
    more, warnings = rules.check(settings, PARAMETERS, arrived, bad, environ)
    lines = [*arrived.faults, *lines, *more]
    if lines:
        raise BadParameters([redact(line) for line in lines])
    return replace(settings, warnings=tuple(redact(line) for line in warnings))


def _with_given(settings: Settings, names: frozenset[str]) -> Settings:
    """The form of a template hands over defaults, also of what is not switched on: there they count as not
    given."""
    if not settings.in_process:
        names -= {name for name in names if getattr(settings, name) == PARAMETERS[name].default}
    return replace(settings, given=names)


def _values(arrived: command_line.Arrived) -> tuple[dict[str, Any], frozenset[str], list[str]]:
    """The values that could be read, the names of those that could not, and why."""
    read: dict[str, Any] = {}
    lines = []
    for name, sources in arrived.given.items():
        parameter = PARAMETERS[name]
        for source, given in sources:
            value, fault = parameter.attempt(source, given)
            if fault:
                lines.append(fault)
            else:
                read[name] = read.get(name, ()) + value if parameter.repeatable else value
    return read, frozenset(arrived.given) - read.keys(), lines


if __name__ == "__main__":
    sys.stdout.write(manual.markdown(PARAMETERS))
