"""BigQuery: events as rows of a table, through the Storage Write API (each once) or through insertAll."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

from transforms.batch import BatchPolicy, batches
from transforms.event import Event
from transforms.preflight import Finding
from transforms.readers import address_fault
from transforms.setting import BadSettings, setting, shared
from transforms.way_out import USUAL, WayOut
from transforms.write.asked import Asked, asked_for
from transforms.write.bigquery.rows import SchemaName, json_size, proto_size
from transforms.write.bigquery.table import TABLE, TableName, parse_table
from transforms.write.contract import Destination, Writer

Method = Literal["storage_write", "insert_all"]

# BigQuery takes 10 MB a request by either method and recommends 500 rows for insertAll (50,000 at most); 5 s
# is the peer's flush interval and small against the time in which people query.
POLICY = BatchPolicy(max_events=500, max_bytes=9_000_000, max_age=5.0)
# More than this could make a request that is refused: the rest of the 10 MB is for what surrounds the rows.
MOST_BYTES = 9_500_000
MOST_ROWS = 50_000


def table_name(text: str) -> str:
    """A table's full name, as BigQuery and its older tools write it."""
    return str(parse_table(text))


@dataclass(frozen=True)
class BigQuery(Destination):
    """Settings of BigQuery.

    table: "project.dataset.table"; created when it is missing, its dataset is not.
    method: `storage_write` puts each event into the table once, over retries and, on one machine, over
        crashes; `insert_all` is at least once, with the event's id as insertId.
    schema: `typed` has created_at TIMESTAMP and data JSON, and `event` for whatever the other columns do not
        hold; `compatible` has the four STRING columns of the Node package.
    endpoint, storage_endpoint: other roots of the REST and the gRPC service; http:// means an emulator, for
        which no credentials are read. Otherwise they are Google's application default credentials.
    way_out: the proxy, and the authorities to trust beside the usual ones.

    Raises ValueError for a table's name or limits that BigQuery would refuse.
    """

    table: str = setting(
        "Table that events go to; it is created when missing, its dataset is not.",
        read=table_name,
        placeholder="PROJECT.DATASET.TABLE",
        pattern=TABLE,
        target=True,
        example="my-project.grantex.events",
    )
    method: Method = setting("storage_write: each event once; insert_all: at least once.", "storage_write")
    schema: SchemaName = setting(
        "typed: TIMESTAMP and JSON columns; compatible: four STRING columns.", "typed"
    )
    endpoint: str | None = setting(
        "Root of another REST service; http:// is an emulator without credentials.",
        None,
        url="/bigquery/v2",
        example="http://127.0.0.1:9050",
    )
    storage_endpoint: str | None = setting(
        "Root of another Storage Write (gRPC) service.",
        None,
        parent=("method", "storage_write"),
        url="/google.cloud",
        example="http://127.0.0.1:9060",
    )
    way_out: WayOut = shared("way_out", USUAL)
    policy: BatchPolicy = batches(POLICY, "in one request", most_events=MOST_ROWS, most_bytes=MOST_BYTES)
    # An append takes BigQuery some 100 ms, so each writer makes 5,000 events/s at 500 a batch. Each is a
    # stream, a connection and three threads.
    concurrency: int = 4
    asked: Asked = asked_for()

    name: ClassVar[str] = "bigquery"
    title: ClassVar[str] = "BigQuery"

    def __post_init__(self) -> None:
        parse_table(self.table)
        if self.policy.max_bytes > MOST_BYTES or self.policy.max_events > MOST_ROWS:
            raise ValueError(
                f"BigQuery takes 10 MB and {MOST_ROWS} rows a request: max_bytes must be at most "
                f"{MOST_BYTES} and max_events at most {MOST_ROWS}"
            )
        if faults := list(self.faults()):
            raise BadSettings(faults)

    def faults(self) -> Iterator[tuple[str, str]]:
        """Half of an emulator would send the other half of the calls to Google without credentials; a
        password would be shown."""
        for name, url in (("endpoint", self.endpoint), ("storage_endpoint", self.storage_endpoint)):
            if fault := address_fault(url):
                yield name, fault
        if self.method == "storage_write" and self.anonymous and not self.storage_endpoint:
            yield "endpoint", "an emulator needs {storage_endpoint}, too, or {method}=insert_all"

    @property
    def name_of_table(self) -> TableName:
        return parse_table(self.table)

    @property
    def anonymous(self) -> bool:
        """Talks to an emulator, which asks for no credentials."""
        return (self.endpoint or "").startswith("http://")

    def size(self, event: Event) -> int:
        """At least the bytes of `event` in a request: exact for large events, a bound for small ones."""
        if self.method == "storage_write":
            return proto_size(event, self.schema)
        return json_size(event, self.schema)

    def target(self) -> str:
        """The table."""
        return str(self.name_of_table)

    def preflight(self) -> Iterator[Finding]:
        """Look at the table, or at the dataset that it is to be made in; nothing is made."""
        from transforms.write.bigquery.rest import look  # which imports Google's client

        yield from look(self)

    def check(self) -> Iterator[Finding]:
        """As `preflight`; then what an append needs, with no row in it."""
        from transforms.write.bigquery.check import check  # which imports Google's clients

        yield from check(self)

    def exactly_once(self) -> bool:
        return self.method == "storage_write"

    def open(self) -> Writer:
        """Raises OSError when an authority or certificate cannot be read."""
        # Here, because these imports take half a second and gRPC is not everybody's.
        if self.method == "storage_write":
            from transforms.write.bigquery.storage_write import StorageWriter

            return StorageWriter(self)
        from transforms.write.bigquery.insert_all import InsertAllWriter

        return InsertAllWriter(self)
