"""Parameters of `provision`: whether it asks, which of the job's each of its parts uses, what is its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.flags.manual import PACKAGE, program_help
from pipelines.flags.parameter import Group, declared
from pipelines.flags.settings import PARAMETERS, Program
from pipelines.packs.retention import FRAMEWORKS
from transforms import pubsub_names
from transforms.secret import Secret
from transforms.setting import setting


@dataclass(frozen=True, kw_only=True)
class ProvisionParameters:
    group: ClassVar[Group] = Group("Provision")

    yes: bool = setting("Do it without asking.", False)
    print: bool = setting("Show what would be done, and do nothing.", False)


@dataclass(frozen=True, kw_only=True)
class OfDestinations(ProvisionParameters):
    """Of every part but the feed's."""

    print: bool = setting(
        "Print what it would do as files for somebody else to carry out (Terraform, JSON, SQL, conf); the "
        "service is not asked.",
        False,
    )
    into: Path | None = setting(
        "With --print=true: write them there instead.",
        None,
        placeholder="DIRECTORY",
        parent=("print", "true"),
    )
    overwrite: bool = setting("What somebody has made otherwise there becomes what we would make.", False)


@dataclass(frozen=True, kw_only=True)
class OfArchives(OfDestinations):
    """Of those that keep events for years."""

    retention: str = setting(
        "Framework whose years events are kept for (docs/packs.md lists them); without it nothing is set.",
        "",
        choices=tuple(each.name for each in FRAMEWORKS),
    )


@dataclass(frozen=True, kw_only=True)
class OfSplunk(OfArchives):
    splunk_management_url: str = setting(
        "Root of the management port.",
        "",
        url="",
        default_text="https://, the host of --splunk_hec_url, :8089",
        example="https://splunk.example.com:8089",
    )
    splunk_management_token: Secret | None = setting(
        "Authentication token of a user who may do all this; or give user and password.",
        None,
        example="env:SPLUNK_MANAGEMENT_TOKEN",
    )
    splunk_user: str = setting("User who may do all this.", "", target=True)
    splunk_password: Secret | None = setting(
        "Password of --splunk_user.", None, example="env:SPLUNK_PASSWORD"
    )


@dataclass(frozen=True, kw_only=True)
class OfBigQuery(OfArchives):
    bigquery_location: str = setting(
        "Where the data of a dataset that is to be made lives; it cannot be changed.",
        "",
        pattern="[A-Za-z]{2}|[a-z]+-[a-z]+[0-9]+",
        right="a multi-region such as EU, or a region such as europe-west3",
        example="EU",
    )


@dataclass(frozen=True, kw_only=True)
class OfBuckets(OfArchives):
    object_lock: Literal["off", "governance", "compliance"] = setting(
        "Objects cannot be deleted or changed for the least years of --retention: governance, by nobody who "
        "may not lift it; compliance, by nobody at all, for ever.",
        "off",
        parent=("retention",),
    )
    lock_for_ever: str = setting(
        "The bucket's name again: answers the second question of --object_lock=compliance where nobody can "
        "be asked.",
        "",
        placeholder="BUCKET",
    )


@dataclass(frozen=True, kw_only=True)
class OfS3(OfBuckets):
    athena_database: str = setting(
        "Database of Athena (in Glue's catalogue) that gets a table over the archive.",
        "",
        pattern="[a-z0-9_]{1,255}",
        right="small letters, digits and _, as Glue's names are",
        example="grantex",
    )


@dataclass(frozen=True, kw_only=True)
class OfGCS(OfBuckets):
    gcs_project: str = setting(
        "Project of a bucket that is to be made.",
        "",
        pattern="[a-z0-9.:-]+",
        right="a project's id",
        example="my-project",
    )
    gcs_location: str = setting(
        "Where the data of a bucket that is to be made lives; it cannot be changed.",
        "",
        pattern="[A-Za-z0-9-]+",
        right="a multi-region such as EU, or a region such as europe-west3",
        example="EU",
    )


@dataclass(frozen=True, kw_only=True)
class OfKafka(OfArchives):
    # Enough for a dozen readers side by side; more can be had later, and then move keys to other partitions.
    kafka_partitions: int = setting(
        "Partitions of a topic that is to be made.", 6, at_least=1, at_most=10_000
    )
    kafka_replicas: int | None = setting(
        "Copies of each of its partitions.",
        None,
        default_text="3, or as many as there are brokers",
        at_least=1,
        at_most=100,
    )


@dataclass(frozen=True, kw_only=True)
class OfPubSub(OfDestinations):
    subscription: str = setting(
        "Subscription that is made for it, as the job on Dataflow has it in --pubsub_subscription.",
        "",
        read=pubsub_names.subscription,
        placeholder="projects/PROJECT/subscriptions/NAME",
        pattern=pubsub_names.SUBSCRIPTION,
        example="projects/my-project/subscriptions/grantex-events",
    )


@dataclass(frozen=True, kw_only=True)
class OfDatadog(OfDestinations):
    datadog_app_key: Secret | None = setting(
        "Application key, beside the API key: pipelines, monitors and dashboards are made with both.",
        None,
        example="env:DATADOG_APP_KEY",
    )


ROOMS = (OfSplunk, OfBigQuery, OfS3, OfGCS, OfKafka, OfPubSub, OfDatadog)
OWN = {each.name: each for room in ROOMS for each in declared(room)}
# How a service is reached, for every part.
WAY_OUT = "ca_file client_certificate client_key http_proxy"


def program(
    name: str,
    about: str,
    uses: str,
    new_secrets: Iterable[str] = (),
    asks: type[ProvisionParameters] = ProvisionParameters,
) -> Program:
    """`provision NAME` with the parameters in `uses`; others of the job's may be given and do nothing.

    new_secrets: those that need not be there yet, as this is to put them there. asks: parameters of its own.
    """
    asking = {each.name: each for each in declared(asks)}
    own = {**asking, **{each: replace(PARAMETERS[each], secret=False) for each in new_secrets}}

    def help() -> str:
        return program_help(f"provision {name} [--yes=true] [--name=value ...]", about, made.parameters())

    made = Program(
        f"provision {name}",
        own,
        frozenset(f"{uses} {WAY_OUT}".split()),
        help=help,
        needs_destination=False,
        lenient=True,
    )
    return made


def help_of_all(names: Iterable[str]) -> str:
    """For `provision --help`."""
    each = "\n".join(f"  {PACKAGE} provision {name} --help" for name in names)
    return f"provision sets up at a service what the job needs there. What there is:\n{each}"
