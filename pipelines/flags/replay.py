"""Parameters of `replay`: where events are read back from, which of them, and where they go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pipelines.flags.general import IN_PROCESS, REMOTE
from pipelines.flags.manual import program_help
from pipelines.flags.parameter import Group, Parameter, declared
from pipelines.flags.settings import PARAMETERS, BadParameters, Program, Settings
from transforms import event_types, readers
from transforms.archive.bigquery_rows import BigQueryRows
from transforms.archive.choice import Archive, Selection, instant
from transforms.archive.objects import GoogleObjects, S3Objects
from transforms.archive.sources import Directory, Source
from transforms.setting import setting
from transforms.write.bigquery.destination import table_name
from transforms.write.contract import Destination
from transforms.write.files.destination import Files
from transforms.write.gcs.destination import GCS
from transforms.write.s3.destination import ROLE, S3, bucket_name, external_id_text

ABOUT = """
Sends archived events, or dead letters, to the destinations that are given, each to all of them. A dead letter
goes to the destination that refused it and to no other one, unless --to_all=true. What is no event (gaps,
frames, torn lines) is left out and counted, and so are repeats of an id and events that a destination has a
receipt for. What a destination refuses becomes a dead letter of the replay, in a directory of its own.
An interrupted replay that is started again goes on: S3, Cloud Storage and files get no event twice, others
at most those that were on their way. Exit code 0: all delivered; 1: not all, or some are dead letters;
2: wrong parameters.
"""
FORMS = "dead_letters:DIRECTORY, files:DIRECTORY, s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or bigquery:P.D.T"


@dataclass(frozen=True)
class From:
    """A source as it was given: what kind, and what follows. How it is reached is told by other flags."""

    kind: str  # "directory", "s3://", "gs://" or "bigquery"
    place: str
    letters: bool = False


def source_text(text: str) -> From:
    """One of FORMS; dead letters may lie in a bucket as well."""
    letters = text.startswith("dead_letters:")
    place = text.removeprefix("dead_letters:")
    if place.startswith(REMOTE):
        kind, _, rest = place.partition("://")
        bucket, _, prefix = readers.printable(rest).partition("/")
        bucket_name(bucket)
        return From(f"{kind}://", f"{bucket}/{prefix.strip('/')}", letters)
    if place.startswith("bigquery:") and not letters:
        return From("bigquery", table_name(place.removeprefix("bigquery:")))
    if not letters and not place.startswith("files:"):
        raise ValueError(f"must be {FORMS}")
    root = readers.path(place if letters else place.removeprefix("files:"))
    if not root.is_dir():
        raise ValueError("must name a directory that exists")
    return From("directory", str(root), letters)


def id_file(text: str) -> Path:
    """A file with one id a line."""
    path = readers.path(text)
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError("must be a file of text, one id a line") from None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); it must be a file with one id a line") from None
    return path


@dataclass(frozen=True, kw_only=True)
class ReplayParameters:
    group: ClassVar[Group] = Group("Replay")

    source: From | None = setting(
        f"Where events are read back from: {FORMS}.",
        None,
        read=source_text,
        called="from",
        placeholder="SOURCE",
        required=True,
        example="dead_letters:./state/dead_letters",
    )
    types: tuple[str, ...] = setting(
        "Event types to send, as shell patterns; ! in front excludes.",
        (),
        read=event_types.read_patterns,
        default_text="all",
        example="grant.*,!grant.revoked",
    )
    since: float | None = setting(
        "Events from this moment on, by their createdAt; UTC unless it says otherwise.",
        None,
        read=instant,
        placeholder="TIME",
        example="2026-03-01T12:00:00Z",
    )
    until: float | None = setting(
        "Events before this moment.", None, read=instant, placeholder="TIME", example="2026-03-02"
    )
    ids: Path | None = setting(
        "File with ids, one a line: these events and no others.",
        None,
        read=id_file,
        placeholder="FILE",
        example="./missing.txt",
    )
    plan_only: bool = setting("Say what would be sent where, and send nothing.", False)
    force: bool = setting(
        "Send also what a destination has a receipt for, and dead letters that may have been delivered.",
        False,
    )
    to_all: bool = setting("Dead letters go to every destination that is given.", False)
    max_rate: float = setting(
        "Events a second at most, to each destination; 0 is as fast as they take them.",
        0.0,
        at_least=0,
        on_cluster="refused",
    )
    from_endpoint: str | None = setting(
        "Root of another service to read from, with the protocol of S3, Cloud Storage or BigQuery.",
        None,
        url="",
        example="https://minio.example.com:9000",
    )
    from_region: str | None = setting(
        "Region of the S3 bucket that is read.",
        None,
        pattern="[a-z0-9][a-z0-9-]*",
        right="a region's code, such as eu-central-1",
        example="eu-central-1",
    )
    from_role_arn: str | None = setting(
        "Role to assume for reading from S3.",
        None,
        pattern=ROLE,
        right="a role's ARN",
        example="arn:aws:iam::123456789012:role/archive",
    )
    from_external_id: str | None = setting(
        "External id that the role's owner asks for.", None, read=external_id_text
    )


OWN: dict[str, Parameter] = {each.name: each for each in declared(ReplayParameters)}
# Of the job's: how it runs, what it keeps, how it speaks, and all destinations.
GENERAL = """config runner preflight drain_timeout ca_file client_certificate client_key http_proxy state_dir
dead_letters dead_letter_limit log_format log_level http_compression pseudonym_key custom_destination"""
USES = frozenset({*GENERAL.split(), *(name for name, each in PARAMETERS.items() if each.group.destination)})


def help_text() -> str:
    """For `--help`: what it does, its own flags, then those that it shares with the job."""
    usage = "replay --from=SOURCE [--plan_only=true] [--name=value ...]"
    return program_help(usage, ABOUT, PROGRAM.parameters())


PROGRAM = Program("replay", OWN, USES, ", which reads no feed; --help lists what has", help_text)


def archive_of(settings: Settings) -> Archive:
    """What is to be read. Raises BadParameters for settings that do not go together."""
    if faults := list(_faults(settings)):
        raise BadParameters(faults)
    path = settings["ids"]
    ids = None if path is None else frozenset(Path(path).read_text(encoding="utf-8").split())
    selection = Selection(settings["types"], settings["since"], settings["until"], ids)
    return Archive(source_of(settings), selection, doubtful=settings["force"])


def source_of(settings: Settings) -> Source:
    """The source, and how it is reached."""
    given: From = settings["from"]
    endpoint, way_out = settings["from_endpoint"], settings.way_out
    if given.kind == "directory":
        return Directory(given.place, given.letters)
    if given.kind == "bigquery":
        return BigQueryRows(given.place, endpoint, way_out)
    bucket, _, prefix = given.place.partition("/")
    if given.kind == "gs://":
        return GoogleObjects(bucket, prefix, endpoint, way_out, given.letters)
    how: dict[str, Any] = {
        name: settings[f"from_{name}"] for name in ("region", "endpoint", "role_arn", "external_id")
    }
    return S3Objects(S3(bucket, prefix, way_out=way_out, **how), given.letters)


def _faults(settings: Settings) -> Iterator[str]:
    given: From = settings["from"]
    since, until = settings["since"], settings["until"]
    if since is not None and until is not None and since >= until:
        yield "--until: must be later than --since"
    if settings["to_all"] and not given.letters:
        yield "--to_all: is for dead letters; events of an archive go to every destination anyway"
    if settings["from_endpoint"] and given.kind == "directory":
        yield "--from_endpoint: has no meaning for a directory"
    if given.kind != "s3://":
        for name in ("from_region", "from_role_arn", "from_external_id"):
            if settings[name]:
                yield f"--{name}: is for reading from S3 (--from=s3://…)"
    elif settings["from_external_id"] and not settings["from_role_arn"]:
        yield "--from_external_id: needs --from_role_arn, the role that asks for it"
    if given.kind == "directory" and settings.runner not in (IN_PROCESS, "PrismRunner"):
        yield f"--from: a directory of this machine cannot be read with --runner={settings.runner}"


def overlaps(source: Source, destinations: Sequence[Destination]) -> Iterator[str]:
    """Destinations that would write into what is being read."""
    for each in destinations:
        if isinstance(source, Directory) and isinstance(each, Files):
            one, other = Path(source.root).resolve(), Path(each.dir).resolve()
            same = one.is_relative_to(other) or other.is_relative_to(one)
        elif isinstance(source, S3Objects) and isinstance(each, S3):
            mine, theirs = source.settings, each
            same = (mine.bucket, mine.endpoint) == (theirs.bucket, theirs.endpoint) and (
                _inside(mine.prefix, theirs.prefix) or _inside(theirs.prefix, mine.prefix)
            )
        elif isinstance(source, GoogleObjects) and isinstance(each, GCS):
            same = (source.bucket, source.endpoint) == (each.bucket, each.endpoint) and (
                _inside(source.prefix, each.prefix) or _inside(each.prefix, source.prefix)
            )
        else:
            same = isinstance(source, BigQueryRows) and source.table == getattr(each, "table", "")
        if same:
            yield f"--from: {each.name} would write into what is read; name another place for one of them"


def _inside(one: str, other: str) -> bool:
    """Whether keys under a prefix are keys under the other one."""
    return not other or one == other or one.startswith(f"{other.rstrip('/')}/")


def kept_at(settings: Settings, source: Source) -> str:
    """Where the replay's own dead letters go: beside the job's, and never into what is read."""
    place = settings.dead_letters_place.rstrip("/")
    root = f"{source}".removeprefix("dead_letters:")
    while True:
        bucket = place.startswith(REMOTE) and place.count("/") < 3  # a bucket's name is no place to add to
        place += "/replay" if bucket else "_replay"
        if place != root.rstrip("/"):
            return place
