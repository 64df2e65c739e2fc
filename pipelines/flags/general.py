"""Parameters of the feed and of the windows over it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.flags import parameter
from pipelines.flags.parameter import (
    Group,
    byte_count,
    choice,
    directory,
    names,
    optional_path,
    proxy,
    seconds,
    secret,
    switch,
    text,
    url,
    whole,
)
from transforms.proxies import Proxy
from transforms.pubsub_names import subscription
from transforms.secret import Secret

FEED = Group("Feed")


@dataclass(frozen=True, kw_only=True)
class FeedParameters:
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
    pubsub_subscription: str = text(
        FEED,
        "",
        "On Dataflow, instead of the feed: what a job on one machine publishes with --pubsub_topic.",
        read=subscription,
        placeholder="projects/PROJECT/subscriptions/NAME",
        pattern=r"projects/[^/\s]+/subscriptions/[^/\s]+",
        param_type="PUBSUB_SUBSCRIPTION",
        in_demo=False,
        example="projects/my-project/subscriptions/grantex-events",
    )
    window_size: float = seconds(FEED, 300, "Length of the fixed windows over arrival time.")


KEEPING = Group("What is kept")
REMOTE = ("gs://", "s3://")


def place(text: str) -> str:
    """A directory of this machine, or what names begin with in a bucket, without a slash at its end."""
    if not text.startswith(REMOTE):
        return str(parameter.path(text))
    if not parameter.printable(text).rstrip("/").partition("://")[2]:
        raise ValueError("must name a bucket after ://")
    return text.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class KeepingParameters:
    state_dir: Path = directory(
        KEEPING,
        Path("state"),
        "Journal and dead letters; the demo has a temporary one.",
        default_text="./state",
        in_demo=False,
        on_cluster="refused",
    )
    journal_max_bytes: int = byte_count(
        KEEPING,
        10 * 1024**3,
        "Past it the feed is not read until destinations catch up.",
        at_least=1_000_000,
        on_cluster="ignored",
    )
    dedupe_horizon: float = seconds(KEEPING, 3600, "How long a repeated event id is recognised.")
    dead_letters: str = text(
        KEEPING,
        "",
        "Where rejected events are written: a directory, or a gs:// or s3:// prefix.",
        read=place,
        placeholder="DIRECTORY",
        pattern=r"(gs|s3)://[^\s/]+(/\S*)?",
        default_text="<state_dir>/dead_letters",
        example="gs://my-bucket/dead_letters",
    )
    dead_letter_limit: int = whole(
        KEEPING, 10_000, "Dead letters in one hour after which a destination pauses.", at_least=1
    )
    forget_destination: tuple[str, ...] = names(
        KEEPING,
        "A removed destination whose kept events may go.",
        repeatable=True,
        in_demo=False,
        on_cluster="refused",
        example="splunk",
    )

    @property
    def dead_letters_place(self) -> str:
        """Where a run on one machine keeps dead letters, also when `dead_letters` was not given."""
        return self.dead_letters or str(self.state_dir / "dead_letters")


RUN = Group("Run")
IN_PROCESS = "DirectRunner"
DATAFLOW = "DataflowRunner"
# Tried in tests; Spark has no state and timers as this job needs them.
RUNNERS = (IN_PROCESS, DATAFLOW, "FlinkRunner", "PortableRunner", "PrismRunner")
HTTP = Group("HTTP destinations")


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    demo: bool = switch(
        RUN,
        "Run against a practice feed and practice destinations; nothing else is needed.",
        on_cluster="refused",
    )
    runner: str = choice(
        RUN, IN_PROCESS, "DirectRunner is this machine, in one process; the others are clusters.", RUNNERS
    )
    preflight: Literal["warn", "strict", "off"] = choice(
        RUN,
        "warn",
        "Feed key and destinations are tried at the start, without an event: warn says what does not pass "
        "and goes on, strict exits with 3.",
        ("warn", "strict", "off"),
    )
    validate_only: bool = switch(
        RUN, "Run the preflight, say what was found, and end: 0, or 3 when it failed."
    )
    drain_timeout: float = seconds(
        RUN,
        25,
        "How long a drain may take before the rest is kept and the job ends; on Dataflow, how long it waits "
        "for a destination that takes nothing.",
    )
    ca_file: Path | None = optional_path(
        RUN, "PEM file with a further certificate authority for feed and destinations.", "FILE"
    )
    client_certificate: Path | None = optional_path(
        RUN, "PEM file with the certificate that feed and HTTP destinations are shown (mTLS).", "FILE"
    )
    client_key: Path | None = optional_path(
        RUN, "PEM file with its key, unless the certificate's file holds both.", "FILE"
    )
    http_proxy: Proxy | None = proxy(
        RUN,
        "Proxy for whatever is not on this machine, over HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.",
        pattern=r"(http://)?[^\s/@]+(:\d+)?/?",
        example="http://proxy.example.com:3128",
    )

    @property
    def in_process(self) -> bool:
        """One machine, with lanes and a journal; otherwise one job on a cluster."""
        return self.runner == IN_PROCESS


@dataclass(frozen=True, kw_only=True)
class HttpParameters:
    http_compression: Literal["gzip", "none"] = choice(
        HTTP, "gzip", "How requests to Datadog and Splunk are compressed.", ("gzip", "none")
    )


WATCHING = Group("Watching")


@dataclass(frozen=True, kw_only=True)
class WatchingParameters:
    status_port: int = whole(
        WATCHING,
        8787,
        "Port of the status page; 0 is off.",
        at_least=0,
        at_most=65_535,
        on_cluster="ignored",
    )
    status_host: str = text(
        WATCHING,
        "127.0.0.1",
        "Address the status page listens on.",
        read=parameter.host,
        on_cluster="ignored",
    )
    log_format: Literal["auto", "text", "json"] = choice(
        WATCHING, "auto", "auto is text on a terminal, else json.", ("auto", "text", "json")
    )
    log_level: str = choice(
        WATCHING, "INFO", "The least that is logged.", ("DEBUG", "INFO", "WARNING", "ERROR")
    )
