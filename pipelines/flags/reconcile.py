"""Parameters of `reconcile`: which window of time, against what, and where the missing ones are written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pipelines.flags.destinations import KINDS, group_of
from pipelines.flags.manual import program_help
from pipelines.flags.parameter import Group, Parameter, declared
from pipelines.flags.settings import PARAMETERS, Program, Settings
from transforms import readers
from transforms.archive.choice import instant
from transforms.setting import setting

ABOUT = """
Compares the service's delivery ledger, which has a row for every event of a webhook's types, with what was
received and delivered: the receipts in --state_dir, or a destination that is read back. Nothing is changed
anywhere. The last minute is left out; types that the ledger does not have, and time before its webhook was
registered, are named and never counted as missing. A run that was interrupted goes on when the same command
is given again. Of the requests a minute that the key has, a fifth is left alone. Exit code 0: complete;
1: events are missing or pending, or it could not be finished; 2: wrong parameters.
"""
Against = Literal["receipts", "files", "s3", "bigquery", "kafka"]


@dataclass(frozen=True, kw_only=True)
class ReconcileParameters:
    group: ClassVar[Group] = Group("Reconcile")

    against: Against = setting(
        "What the ledger is compared with: the receipts in --state_dir, or this destination, read back.",
        "receipts",
    )
    since: float | None = setting(
        "Events from this moment on; UTC unless it says otherwise.",
        None,
        read=instant,
        placeholder="TIME",
        default_text="as far back as can be told",
        example="2026-03-01T12:00:00Z",
    )
    until: float | None = setting(
        "Events before this moment.",
        None,
        read=instant,
        placeholder="TIME",
        default_text="a minute ago",
        example="2026-03-02",
    )
    missing: Path | None = setting(
        "File that the missing events are written to, one a line (NDJSON).",
        None,
        read=readers.path,
        placeholder="FILE",
        example="./missing.ndjson",
    )
    json: bool = setting("Print one JSON object in the place of the table.", False)


OWN: dict[str, Parameter] = {each.name: each for each in declared(ReconcileParameters)}
# Of the job's: whose ledger, how it is reached, what was kept, and the destinations that can be read back.
GENERAL = """config feed_url feed_api_key feed_types ledger_webhook ca_file client_certificate client_key
http_proxy state_dir dead_letters log_format log_level"""
USES = frozenset({*GENERAL.split(), *(name for name, each in PARAMETERS.items() if each.group.destination)})


def help_text() -> str:
    """For `--help`: what it does, its own flags, then those that it shares with the job."""
    usage = "reconcile --feed_api_key=SECRET [--against=WHAT] [--name=value ...]"
    return program_help(usage, ABOUT, PROGRAM.parameters())


PROGRAM = Program(
    "reconcile",
    OWN,
    USES,
    ", which delivers nothing; --help lists what has",
    needs_destination=False,
    help=help_text,
)


def faults(settings: Settings) -> Iterator[str]:
    """What does not go together."""
    since, until, missing = settings["since"], settings["until"], settings["missing"]
    if since is not None and until is not None and since >= until:
        yield "--until: must be later than --since"
    for kind in KINDS:
        first = group_of(kind).first
        if kind.name == settings["against"] and not settings[first]:
            yield f"--against={kind.name}: needs --{first}, and whatever else the job is given for it"
    if settings["against"] == "receipts" and not settings.state_dir.is_dir():
        yield f"--state_dir={settings.state_dir}: is no directory; the receipts are in the job's"
    if missing is not None and not missing.absolute().parent.is_dir():
        yield "--missing: lies in a directory that does not exist"
