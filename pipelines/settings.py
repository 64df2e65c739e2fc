"""Every parameter, declared once: flag, environment variable, help and README row all come from here."""

# ruff: noqa: RUF009 (the calls are dataclasses.field behind a name)

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pipelines import command_line, custom, kafka_settings, manual, rules, values
from pipelines.parameters import (
    Group,
    Parameter,
    byte_count,
    choice,
    declared,
    directory,
    names,
    optional_path,
    pairs,
    seconds,
    secret,
    switch,
    text,
    url,
    whole,
)
from transforms.batch import BatchPolicy
from transforms.secret import Secret, redact
from transforms.write.contract import Destination

RUN = Group("Run")
FEED = Group("Feed")
KEEPING = Group("What is kept")
WATCHING = Group("Watching")
HTTP = Group("HTTP destinations")
SPLUNK = Group("Splunk HEC", destination="splunk", first="splunk_hec_url")
KAFKA = Group("Kafka", destination="kafka", first="kafka_bootstrap_servers")
BIGQUERY = Group("BigQuery", destination="bigquery", first="bigquery_table")
FILES = Group("Files", destination="files", first="files_dir")
CUSTOM = Group("Your own destinations", destination="custom", first="custom_destination")


class BadParameters(Exception):
    """What was given cannot be run. `lines` say it to a person, one fault each, without secrets."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings:
    """What a run was asked to do; "" and None stand for what was not given and has no default."""

    demo: bool = switch(RUN, "Run against a practice feed and practice destinations; nothing else is needed.")
    runner: str = choice(
        RUN,
        "DirectRunner",
        "Beam's runner, here its in-process one.",
        ("DirectRunner",),
        later="clusters (Dataflow, Flink) come later",
    )
    drain_timeout: float = seconds(
        RUN, 25, "How long a drain may take before the rest is kept and the job ends."
    )
    ca_file: Path | None = optional_path(
        RUN, "PEM file with a further certificate authority for feed and destinations.", "FILE"
    )

    feed_url: str = url(FEED, "https://api.grantex.dev", "Root of the Grantex service.", ours="/v1/events")
    feed_api_key: Secret | None = secret(FEED, "Grantex API key.", required=True, example="env:FEED_KEY")
    feed_types: tuple[str, ...] = names(
        FEED, "Event types to receive.", default_text="all", example="grant.created,grant.revoked"
    )
    feed_transport: str = choice(
        FEED, "sse", "How events are received.", ("sse",), later="websocket comes later"
    )
    # The service allows five a developer.
    feed_connections: int = whole(FEED, 1, "At most so many redundant connections.", at_least=1, at_most=5)
    window_size: float = seconds(FEED, 300, "Length of the fixed windows over arrival time.")

    state_dir: Path = directory(
        KEEPING,
        Path("state"),
        "Journal and dead letters; the demo has a temporary one.",
        default_text="./state",
        in_demo=False,
    )
    journal_max_bytes: int = byte_count(
        KEEPING, 10 * 1024**3, "Past it the feed is not read until destinations catch up.", at_least=1_000_000
    )
    dedupe_horizon: float = seconds(KEEPING, 3600, "How long a repeated event id is recognised.")
    dead_letters: Path | None = optional_path(
        KEEPING, "Where rejected events are written.", "DIRECTORY", default_text="<state_dir>/dead_letters"
    )
    dead_letter_limit: int = whole(
        KEEPING, 10_000, "Dead letters in one hour after which a destination pauses.", at_least=1
    )
    forget_destination: tuple[str, ...] = names(
        KEEPING,
        "A removed destination whose kept events may go.",
        repeatable=True,
        in_demo=False,
        example="splunk",
    )

    status_port: int = whole(WATCHING, 8787, "Port of the status page; 0 is off.", at_least=0, at_most=65_535)
    status_host: str = text(WATCHING, "127.0.0.1", "Address the status page listens on.", read=values.host)
    log_format: Literal["auto", "text", "json"] = choice(
        WATCHING, "auto", "auto is text on a terminal, else json.", ("auto", "text", "json")
    )
    log_level: str = choice(
        WATCHING, "INFO", "The least that is logged.", ("DEBUG", "INFO", "WARNING", "ERROR")
    )

    http_compression: Literal["gzip", "none"] = choice(
        HTTP, "gzip", "How requests are compressed.", ("gzip", "none")
    )

    splunk_hec_url: str = url(
        SPLUNK,
        "",
        "Root of the HTTP Event Collector.",
        ours="/services/collector",
        example="https://splunk.example.com:8088",
    )
    splunk_hec_token: Secret | None = secret(SPLUNK, "HEC token.", required=True, example="env:SPLUNK_TOKEN")
    splunk_index: str = text(SPLUNK, "main", "Index that events go to.", read=values.splunk_index)
    splunk_source: str = text(SPLUNK, "grantex", "Splunk's source of each event.")
    splunk_sourcetype: str = text(SPLUNK, "_json", "Splunk's sourcetype of each event.")
    splunk_max_events: int = whole(SPLUNK, 500, "Events in one request.", at_least=1)
    # The most that Splunk Cloud asks for.
    splunk_max_bytes: int = byte_count(SPLUNK, 1_000_000, "Bytes in one request, before compression.")
    splunk_max_age: float = seconds(SPLUNK, 2, "How long an event waits for others.")

    kafka_bootstrap_servers: str = text(
        KAFKA,
        "",
        "Where the cluster is found.",
        read=kafka_settings.servers,
        placeholder="HOST:PORT,HOST:PORT",
        in_demo=False,
        example="kafka.example.com:9092",
    )
    kafka_topic: str = text(
        KAFKA, "grantex-events", "Topic that events go to; it must exist.", read=kafka_settings.topic
    )
    kafka_config: tuple[kafka_settings.Pair, ...] = pairs(
        KAFKA,
        "A setting of librdkafka, or file:PATH of a file of them; a VALUE may be a SECRET's reference.",
        read=kafka_settings.pairs,
        placeholder="KEY=VALUE",
        example="security.protocol=SASL_SSL",
    )
    kafka_max_events: int = whole(KAFKA, 1000, "Events handed over at once.", at_least=1)
    kafka_max_bytes: int = byte_count(KAFKA, 900_000, "Bytes handed over at once, before compression.")
    kafka_max_age: float = seconds(KAFKA, 0.2, "How long an event waits for others.")

    bigquery_table: str = text(
        BIGQUERY,
        "",
        "Table that events go to; it is created when missing, its dataset is not.",
        read=values.bigquery_table,
        placeholder="PROJECT.DATASET.TABLE",
        in_demo=False,
        example="my-project.grantex.events",
    )
    bigquery_method: Literal["storage_write", "insert_all"] = choice(
        BIGQUERY,
        "storage_write",
        "storage_write: each event once; insert_all: at least once.",
        ("storage_write", "insert_all"),
    )
    bigquery_schema: Literal["typed", "compatible"] = choice(
        BIGQUERY,
        "typed",
        "typed: TIMESTAMP and JSON columns; compatible: four STRING columns.",
        ("typed", "compatible"),
    )
    bigquery_endpoint: str = url(
        BIGQUERY,
        "",
        "Root of another REST service; http:// is an emulator without credentials.",
        ours="/bigquery/v2",
        example="http://127.0.0.1:9050",
    )
    bigquery_storage_endpoint: str = url(
        BIGQUERY,
        "",
        "Root of another Storage Write (gRPC) service.",
        ours="/google.cloud",
        example="http://127.0.0.1:9060",
    )
    bigquery_max_events: int = whole(BIGQUERY, 500, "Events in one request.", at_least=1, at_most=50_000)
    # BigQuery refuses requests above 10 MB; the rest is room for what surrounds the rows.
    bigquery_max_bytes: int = byte_count(BIGQUERY, 9_000_000, "Bytes in one request.", at_most=9_500_000)
    bigquery_max_age: float = seconds(BIGQUERY, 5, "How long an event waits for others.")

    files_dir: Path | None = optional_path(
        FILES, "Where NDJSON files are written.", "DIRECTORY", example="./out"
    )
    files_max_events: int = whole(FILES, 10_000, "Events in one file.", at_least=1)
    # A batch is held in memory until its file is written.
    files_max_bytes: int = byte_count(FILES, 64_000_000, "Bytes in one file, before compression.")
    files_max_age: float = seconds(FILES, 300, "How long an event waits for others.")

    custom_destination: tuple[Destination, ...] = pairs(
        CUSTOM,
        "A destination of your own: module, class, its name here and its settings.",
        read=custom.load,
        placeholder="MODULE:CLASS?name=NAME&KEY=VALUE",
        example="mypackage.audit:Audit?name=audit&url=https://audit.example.com",
    )

    given: frozenset[str] = frozenset()  # names that a flag or the environment set
    # Beam's own flags, checked and nothing else, for PipelineOptions.
    beam_args: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()  # to be logged at the start

    @property
    def dead_letters_dir(self) -> Path:
        """Where dead letters go, also when `dead_letters` was not given."""
        return self.dead_letters or self.state_dir / "dead_letters"

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
    settings = Settings(**read, given=frozenset(arrived.given), beam_args=arrived.beam_args)
    more, warnings = rules.check(settings, PARAMETERS, arrived, bad, environ)
    lines = [*arrived.faults, *lines, *more]
    if lines:
        raise BadParameters([redact(line) for line in lines])
    return replace(settings, warnings=tuple(redact(line) for line in warnings))


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
