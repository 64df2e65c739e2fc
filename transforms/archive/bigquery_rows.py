"""Events read back from a table of BigQuery, as far as its columns hold them.

The table has the received bytes of an event only in its column `event`, where the other columns could not
hold it. All others are rebuilt from their columns: the same id, type, time and data, but not the same bytes.
`typed` keeps `data` as JSON, whose white space, order of keys and forms of numbers are BigQuery's own, and
`created_at` as a moment in UTC; `compatible` keeps the text of both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from transforms.archive.objects import google_session
from transforms.archive.sources import ArchiveError, Shard
from transforms.secret import redact
from transforms.way_out import USUAL, WayOut
from transforms.write.bigquery.table import parse_table

if TYPE_CHECKING:
    from transforms.archive.choice import Selection

ROWS_AT_ONCE = 5_000  # of some hundred bytes each; a page has 10 MB at most
NEEDED = {"event_id", "event_type", "created_at", "data"}
T = TypeVar("T")


@dataclass(frozen=True)
class BigQueryRows:
    """A table that this program writes, in either of its schemas.

    endpoint: another root of the service; http:// is an emulator, for which no credentials are read.
    """

    table: str
    endpoint: str | None = None
    way_out: WayOut = USUAL
    letters: bool = False

    def __str__(self) -> str:
        return f"bigquery:{self.table}"

    def shards(self) -> list[Shard]:
        """The table itself, by its rows."""
        found = self.found(self.client())
        return [Shard(self.table, int(found.num_rows or 0))]

    def lines(
        self, shard: Shard, selection: Selection, counts: Counter[str]
    ) -> Iterator[tuple[Sequence[bytes], bool]]:
        """By a query that asks for the selection's time and sorts, so that the order stays."""
        client = self.client()
        columns = {field.name.lower(): field.field_type for field in self.found(client).schema}
        typed = columns["created_at"].upper() == "TIMESTAMP"
        given = {
            name: datetime.fromtimestamp(value, timezone.utc)
            for name, value in (("since", selection.since), ("until", selection.until))
            if value is not None and typed
        }
        asked = query(self.table, columns, set(given))
        for rows in self.pages(client, asked, given, ROWS_AT_ONCE, lambda row: row_as_event(row, typed)):
            counts["rebuilt"] += sum(1 for _, exact in rows if not exact)
            yield [raw for raw, _ in rows], True

    def pages(
        self,
        client: Any,
        text: str,
        given: Mapping[str, datetime | str],
        size: int,
        read: Callable[[Any], T],
    ) -> Iterator[list[T]]:
        """The rows that a query finds, `size` at a time, each as `read` makes of it. Raises ArchiveError.

        given: values of the query's parameters.
        """
        from google.cloud.bigquery import QueryJobConfig, ScalarQueryParameter

        try:
            parameters = [
                ScalarQueryParameter(name, "TIMESTAMP" if isinstance(value, datetime) else "STRING", value)
                for name, value in given.items()
            ]
            job = client.query(text, job_config=QueryJobConfig(query_parameters=parameters))
            for page in job.result(page_size=size).pages:
                yield [read(row) for row in page]
        except Exception as error:
            raise self.error(error) from error

    def found(self, client: Any) -> Any:
        """The table's resource. Raises ArchiveError, also for one without our columns."""
        name = parse_table(self.table)
        try:
            found = client.get_table(f"{name.project}.{name.dataset}.{name.table}")
        except Exception as error:
            raise self.error(error) from error
        there = {str(field.name).lower() for field in found.schema}
        if missing := NEEDED - there:
            raise ArchiveError(f"{self} has no column {', '.join(sorted(missing))}: it is none of our tables")
        return found

    def client(self) -> Any:
        """Google's own client. Raises ArchiveError."""
        from google.cloud.bigquery import Client  # half a second

        from transforms.write.google import BIGQUERY

        session = google_session(self.way_out, self.endpoint, BIGQUERY, str(self))
        return Client(parse_table(self.table).project, **session)

    def error(self, error: Exception) -> ArchiveError:
        """What to say of whatever the client raised."""
        return ArchiveError(
            redact(
                f"{self} cannot be read: {error}. Reading takes the roles BigQuery Data Viewer on the "
                "table and BigQuery Job User on its project."
            )
        )


def query(table: str, columns: Mapping[str, str], given: set[str]) -> str:
    """The query; rows without a time are asked for as well, as the selection counts them.

    given: which of the parameters @since and @until there are.
    """
    name = parse_table(table)
    data = "TO_JSON_STRING(data) AS data" if columns["data"].upper() == "JSON" else "data"
    whole = "event" if "event" in columns else "NULL AS event"
    limits = [f"created_at {sign} @{key}" for key, sign in (("since", ">="), ("until", "<")) if key in given]
    where = f" WHERE created_at IS NULL OR ({' AND '.join(limits)})" if limits else ""
    return (  # of a table's checked name
        f"SELECT event_id, event_type, created_at, {data}, {whole} "  # noqa: S608
        f"FROM `{name.project}.{name.dataset}.{name.table}`{where} ORDER BY created_at, event_id"
    )


def row_as_event(row: Mapping[str, Any], typed: bool) -> tuple[bytes, bool]:
    """The event's JSON, and whether it is the very bytes that were received."""
    if row["event"] is not None:
        return str(row["event"]).encode(), True
    data = None if row["data"] is None else str(row["data"])
    # `compatible` has nowhere else to put an event whole that a strict reader refuses.
    if not typed and data is not None and not _is_json(data):
        return data.encode(), True
    fields = [("id", _text(row["event_id"]))]
    if row["event_type"] is not None:
        fields.append(("type", _text(row["event_type"])))
    if row["created_at"] is not None:
        fields.append(("createdAt", _text(_time(row["created_at"]))))
    if data is not None:
        fields.append(("data", data))
    members = ",".join([f'"{name}":{value}' for name, value in fields])
    return f"{{{members}}}".encode(), False


def _text(value: object) -> str:
    return msgspec.json.encode(str(value)).decode()


def _time(value: Any) -> str:
    """As the service writes times, to the millisecond; finer where the table has it finer."""
    if not isinstance(value, datetime):
        return str(value)
    fine = "milliseconds" if value.microsecond % 1000 == 0 else "microseconds"
    return value.astimezone(timezone.utc).isoformat(timespec=fine).replace("+00:00", "Z")


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return False
    return True
