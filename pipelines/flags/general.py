"""Parameters of the job itself: run, feed, what is kept, watching, and what HTTP destinations share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.flags.parameter import Group
from transforms import pubsub_names, readers
from transforms.proxies import Proxy, parse_proxy
from transforms.secret import Secret
from transforms.setting import setting
from transforms.way_out import WayOut

IN_PROCESS = "DirectRunner"
DATAFLOW = "DataflowRunner"
# Tried in tests; Spark has no state and timers as this job needs them.
RUNNERS = (IN_PROCESS, DATAFLOW, "FlinkRunner", "PortableRunner", "PrismRunner")
REMOTE = ("gs://", "s3://")
IN_A_BUCKET = "(gs|s3)://[^ /]+(/[^ ]*)?"


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    group: ClassVar[Group] = Group("Run")

    config: str = setting(
        "YAML file with settings by the flags' names and any number of named destinations; flags and "
        "environment win over it.",
        "",
        placeholder="FILE",
        example="grantex.yaml",
    )
    demo: bool = setting(
        "Run against a practice feed and practice destinations; nothing else is needed.",
        False,
        on_cluster="refused",
    )
    runner: str = setting(
        "DirectRunner is this machine, in one process; the others are clusters.", IN_PROCESS, choices=RUNNERS
    )
    preflight: Literal["warn", "strict", "off"] = setting(
        "Feed key and destinations are tried at the start, without an event: warn says what does not pass "
        "and goes on, strict exits with 3.",
        "warn",
    )
    validate_only: bool = setting(
        "Try everything that delivery needs, as `check` does, and end: 0, or 3 when something failed.", False
    )
    drain_timeout: float = setting(
        "How long a drain may take before the rest is kept and the job ends; on Dataflow, how long it waits "
        "for a destination that takes nothing.",
        25.0,
        unit="seconds",
    )
    ca_file: Path | None = setting(
        "PEM file with a further certificate authority for feed and destinations.", None
    )
    client_certificate: Path | None = setting(
        "PEM file with the certificate that feed and HTTP destinations are shown (mTLS).", None
    )
    client_key: Path | None = setting(
        "PEM file with its key, unless the certificate's file holds both.", None
    )
    # One with a password is never shown (`shown` leaves out what has an @).
    http_proxy: Proxy | None = setting(
        "Proxy for whatever is not on this machine, over HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY.",
        None,
        read=parse_proxy,
        placeholder="PROXY",
        pattern="(http://)?[^ /@]+(:[0-9]+)?/?",
        example="http://proxy.example.com:3128",
    )

    @property
    def in_process(self) -> bool:
        """One machine, with lanes and a journal; otherwise one job on a cluster."""
        return self.runner == IN_PROCESS

    @property
    def way_out(self) -> WayOut:
        """What feed and destinations go out through, and with."""
        paths = (self.ca_file, self.client_certificate, self.client_key)
        return WayOut(self.http_proxy, *(None if path is None else str(path) for path in paths))


@dataclass(frozen=True, kw_only=True)
class FeedParameters:
    group: ClassVar[Group] = Group("Feed")

    feed_url: str = setting("Root of the Grantex service.", "https://api.grantex.dev", url="/v1/events")
    feed_api_key: Secret | None = setting("Grantex API key.", None, required=True, example="env:FEED_KEY")
    feed_types: tuple[str, ...] = setting(
        "Event types to receive.", (), default_text="all", example="grant.created,grant.revoked"
    )
    feed_transport: str = setting(
        "How events are received: as server-sent events, over a WebSocket, or both ways side by side, for "
        "each of which the service has slots of its own.",
        "sse",
        choices=("sse", "websocket", "both"),
    )
    ledger_webhook: str = setting(
        "Continuous proof: the webhook whose delivery ledger says what was published (id, or auto for that "
        "of most types); what is missing is a dead letter.",
        "",
        pattern="[A-Za-z0-9_-]{1,100}",
        right="a webhook's id, or auto",
        placeholder="ID|auto",
        target=True,
        on_cluster="ignored",
        example="auto",
    )
    # The service allows five a developer.
    feed_connections: int = setting(
        "At most so many redundant connections, which watch each other.", 2, at_least=1, at_most=5
    )
    standby: bool = setting(
        "Stand by when another process has the --state_dir: hear the feed, and take over when that one ends.",
        False,
        on_cluster="refused",
    )
    # A minute and a half of 1,000 ordinary events a second: more than a restart or a watchdog takes.
    standby_bytes: int = setting(
        "Memory for what a standby has heard; the oldest goes first.",
        64_000_000,
        unit="bytes",
        at_least=1_000_000,
        at_most=1_000_000_000,  # beyond that the journal may not know all ids in it
        on_cluster="ignored",
    )
    pubsub_subscription: str = setting(
        "On Dataflow, instead of the feed: what a job on one machine publishes with --pubsub_topic.",
        "",
        read=pubsub_names.subscription,
        placeholder="projects/PROJECT/subscriptions/NAME",
        pattern=pubsub_names.SUBSCRIPTION,
        target=True,
        example="projects/my-project/subscriptions/grantex-events",
    )
    window_size: float = setting("Length of the fixed windows over arrival time.", 300.0, unit="seconds")


def each_secret(text: str) -> tuple[Secret, ...]:
    """A reader of a repeatable secret."""
    return tuple(readers.secret(each) for each in readers.several(text))


def public_url(text: str) -> str:
    """An address with a path and a query, which can tell one webhook from another."""
    address, mark, query = readers.printable(text).partition("?")
    if "#" in query:
        raise ValueError("must be without #")
    return readers.url(address, "") + mark + query


@dataclass(frozen=True, kw_only=True)
class WebhookParameters:
    group: ClassVar[Group] = Group("Webhooks")

    webhook_port: int = setting(
        "Port on which the service's webhooks are taken; 0 is off.",
        0,
        at_least=0,
        at_most=65_535,
        target=True,
        on_cluster="refused",
    )
    webhook_host: str = setting(
        "Address they are taken on.", "127.0.0.1", read=readers.host, target=True, on_cluster="refused"
    )
    webhook_path: str = setting(
        "Path they are taken on; all else is 404.",
        "/",
        pattern="/[!-~]*",
        right="a path that begins with /",
        target=True,
        on_cluster="refused",
    )
    webhook_secret: tuple[Secret, ...] = setting(
        "The secret of a webhook; one for each webhook that posts here.",
        (),
        read=each_secret,
        placeholder="SECRET",
        secret=True,
        repeatable=True,
        target=True,
        on_cluster="refused",
        example="file:/etc/grantex/webhook-secret",
    )
    webhook_max_bytes: int = setting(
        "The largest body that is taken.",
        1024**2,
        unit="bytes",
        at_least=1000,
        at_most=10 * 1024**2,
        on_cluster="refused",
    )
    webhook_allow_v1: bool = setting(
        "Also take what has the older signature only, which signs no time: whoever saw it can repeat it.",
        False,
        on_cluster="refused",
    )
    webhook_url: str = setting(
        "Public address of the receiver, for `provision feed`; the job itself does not use it.",
        "",
        read=public_url,
        placeholder="URL",
        on_cluster="ignored",
        example="https://events.example.com/grantex",
    )


def place(text: str) -> str:
    """A directory of this machine, or what names begin with in a bucket, without a slash at its end."""
    if not text.startswith(REMOTE):
        return str(readers.path(text))
    if not re.fullmatch(IN_A_BUCKET, readers.printable(text)):
        raise ValueError("must name a bucket after ://")
    return text.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class KeepingParameters:
    group: ClassVar[Group] = Group("What is kept")

    state_dir: Path = setting(
        "Journal and dead letters; the demo has a temporary one.",
        Path("state"),
        placeholder="DIRECTORY",
        default_text="./state",
        target=True,
        on_cluster="refused",
    )
    journal_max_bytes: int = setting(
        "Past it the feed is not read until destinations catch up.",
        10 * 1024**3,
        unit="bytes",
        at_least=1_000_000,
        on_cluster="ignored",
    )
    dedupe_horizon: float = setting(
        "How long a repeated event id is recognised; a day with webhooks, unless it is given.",
        3600.0,
        unit="seconds",
    )
    receipt_retention: float = setting(
        "How long it is kept which event was received when, and lies where; 0 is off.",
        86_400.0,
        unit="seconds",
        above=None,
        at_least=0,
        on_cluster="ignored",
    )
    receipt_max_bytes: int = setting(
        "Disk that this may take; the oldest goes first.",
        1024**3,
        unit="bytes",
        at_least=0,
        on_cluster="ignored",
    )
    receipts: str = setting(
        "On clusters, where it is kept which event lies where: a gs:// or s3:// prefix, or a directory.",
        "",
        read=place,
        placeholder="DIRECTORY",
        pattern=IN_A_BUCKET,
        example="gs://my-bucket/receipts",
    )
    dead_letters: str = setting(
        "Where rejected events are written: a directory, or a gs:// or s3:// prefix.",
        "",
        read=place,
        placeholder="DIRECTORY",
        pattern=IN_A_BUCKET,  # of directories a form knows nothing
        default_text="<state_dir>/dead_letters",
        example="gs://my-bucket/dead_letters",
    )
    dead_letter_limit: int = setting(
        "Dead letters in one hour after which a destination pauses.", 10_000, at_least=1
    )
    forget_destination: tuple[str, ...] = setting(
        "A removed destination whose kept events may go.",
        (),
        repeatable=True,
        target=True,
        on_cluster="refused",
        example="splunk",
    )

    @property
    def dead_letters_place(self) -> str:
        """Where a run on one machine keeps dead letters, also when `dead_letters` was not given."""
        return self.dead_letters or str(self.state_dir / "dead_letters")


@dataclass(frozen=True, kw_only=True)
class WatchingParameters:
    group: ClassVar[Group] = Group("Watching")

    status_port: int = setting(
        "Port of the status page; 0 is off.", 8787, at_least=0, at_most=65_535, on_cluster="ignored"
    )
    status_host: str = setting(
        "Address the status page listens on.", "127.0.0.1", read=readers.host, on_cluster="ignored"
    )
    log_format: Literal["auto", "text", "json"] = setting("auto is text on a terminal, else json.", "auto")
    log_level: str = setting(
        "The least that is logged.", "INFO", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )


@dataclass(frozen=True, kw_only=True)
class PseudonymParameters:
    group: ClassVar[Group] = Group("Pseudonyms")

    pseudonym_key: Secret | None = setting(
        "Key of the pseudonyms that a destination's _pseudonymize asks for, 16 characters or more; another "
        "key gives other pseudonyms.",
        None,
        target=False,
        example="env:PSEUDONYM_KEY",
    )


@dataclass(frozen=True, kw_only=True)
class HttpParameters:
    group: ClassVar[Group] = Group("HTTP destinations")

    http_compression: Literal["gzip", "none"] = setting(
        "How requests to Datadog and Splunk are compressed.", "gzip"
    )
