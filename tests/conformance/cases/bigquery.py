"""BigQuery by both methods: bqemulator, whose rows are read by SQL; what it cannot refuse, proxies do."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar
from urllib.parse import urlsplit

from pipelines.practice.faults import Fault
from pipelines.practice.http_server import Answer, Request
from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place, largest_that, padded
from tests.conformance.cases.behind_http import BehindHttp
from tests.conformance.cases.behind_proxy import BehindProxy
from tests.servers.bigquery import PROJECT, Emulator
from tests.servers.grpc_proxy import GrpcFaultProxy
from tests.servers.http_proxy import HttpFaultProxy
from tests.servers.tcp_proxy import Http2Frames, TcpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.bigquery.destination import MOST_BYTES, BigQuery
from transforms.write.bigquery.rows import insert_id, json_row, proto_row
from transforms.write.bigquery.storage_write import MAX_ROWS_BYTES

POISON = b"unreadable"
KIND = "bigquery#tableDataInsertAllResponse"
MOST_REQUEST = 10_000_000  # tabledata.insertAll, "Quotas and limits"
UNAVAILABLE, UNAUTHENTICATED = 14, 16
NO_SIGN_IN = "bqemulator asks for no credential; the proxy says what BigQuery says of a wrong one"


@contextmanager
def storage_write(place: Place) -> Iterator[Case]:
    emulator: Emulator = place.server("emulator")
    port = urlsplit(emulator.storage).port
    assert port is not None
    with GrpcFaultProxy(port) as grpc_proxy, TcpFaultProxy(grpc_proxy.port, Http2Frames()) as tcp_proxy:
        yield StorageWriteCase(emulator, place.name, grpc_proxy, tcp_proxy)


@contextmanager
def insert_all(place: Place) -> Iterator[Case]:
    emulator: Emulator = place.server("emulator")
    with HttpFaultProxy(emulator.rest) as proxy:
        yield InsertAllCase(emulator, place.name, proxy)


def rows(emulator: Emulator, table: str) -> Sequence[tuple[str, bytes]]:
    """Id and content of every row, as SQL reads them: the whole event where it was kept, else its `data`."""
    columns = "event_id, event, TO_JSON_STRING(data)"
    try:
        found = emulator.query(f"SELECT {columns} FROM `{PROJECT}.events.{table}`")
    except AssertionError as error:
        if "'notFound'" in str(error):  # nobody has made it yet
            return []
        raise
    return [(str(row[0]), (row[1] or row[2] or "null").encode()) for row in found]


def same(sent: Event, stored: bytes) -> bool:
    """A JSON column holds what JSON says, not its bytes; bqemulator answers it as text within text."""
    if stored == sent.raw:
        return True
    wanted, found = json.loads(sent.raw)["data"], json.loads(stored)
    if isinstance(found, str) and found != wanted:
        found = json.loads(found)
    return bool(found == wanted)


def poisoned(number: int) -> Event:
    event = padded(number, 300)
    return Event(event.id, event.type, event.created_at, event.raw.replace(b"xxxxxxxxxx", POISON, 1))


def _request_size(event: Event) -> int:
    """Bytes of a request with this event alone, as google-cloud-bigquery writes it."""
    row = {"json": json_row(event, "typed"), "insertId": insert_id(event)}
    return len(json.dumps({"rows": [row], "skipInvalidRows": True}))


class ReadBack(Case):
    """What both ways into a table share: how it is read again, and events at the edge of a request."""

    _emulator: Emulator
    _table: str

    def biggest_policy(self) -> BatchPolicy:
        return BatchPolicy(2000, MOST_BYTES, 1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return rows(self._emulator, self._table)

    def same(self, sent: Event, stored: bytes) -> bool:
        return same(sent, stored)

    def largest(self, number: int) -> Event:
        return padded(number, self._most(number))

    def too_large(self, number: int) -> Event:
        return padded(number, self._most(number) + 1)

    def _most(self, number: int) -> int:
        """The size of the largest event that fits into a request by itself."""
        raise NotImplementedError


class StorageWriteCase(ReadBack, BehindProxy):
    """The writer's calls go through a proxy that cuts, then through one that refuses."""

    name = "bigquery storage_write"
    once = True
    once_over_crashes = True
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": FORGETS,
        "gateway": "to gRPC a gateway's answer is a broken connection",
        "retry_after": "gRPC has no Retry-After; the back-off decides",
        "rotate": NO_SIGN_IN,
    }

    def __init__(self, emulator: Emulator, table: str, refuses: GrpcFaultProxy, cuts: TcpFaultProxy) -> None:
        super().__init__(cuts)
        self._emulator, self._table = emulator, table
        self._refuses, self._cuts = refuses, cuts

    def destination(self, policy: BatchPolicy = SMALL) -> BigQuery:
        return BigQuery(
            f"{PROJECT}.events.{self._table}",
            endpoint=self._emulator.rest,
            storage_endpoint=f"http://127.0.0.1:{self._cuts.port}",
            policy=policy,
            concurrency=1,
        )

    def poison(self, number: int) -> Event:
        self._refuses.bad_rows = lambda rows: [i for i, row in enumerate(rows) if POISON in row]
        return poisoned(number)

    def _most(self, number: int) -> int:
        return largest_that(
            lambda event: len(proto_row(event, "typed")) + 8 <= MAX_ROWS_BYTES, number, MAX_ROWS_BYTES
        )

    def busy(self, retry_after: str | None = None) -> None:
        self._refuses.standing = Fault(status=UNAVAILABLE, body=b"try again later")

    def calm(self) -> None:
        self._refuses.standing = Fault()
        super().calm()

    def spoil_credential(self) -> None:
        self._refuses.standing = Fault(status=UNAUTHENTICATED, body=b"invalid credentials")

    def mend_credential(self) -> None:
        self.calm()


class InsertAllCase(ReadBack, BehindHttp):
    """Both the table's definition and the rows go through the proxy."""

    name = "bigquery insert_all"
    busy_body = b'{"error":{"code":503,"message":"busy","errors":[{"reason":"backendError"}]}}'
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": FORGETS,
        "memo": "insert_all keeps no memo",
        "rotate": NO_SIGN_IN,
    }

    def __init__(self, emulator: Emulator, table: str, proxy: HttpFaultProxy) -> None:
        super().__init__(proxy)
        self._emulator, self._table = emulator, table
        proxy.judge_first = self._refuse

    def destination(self, policy: BatchPolicy = SMALL) -> BigQuery:
        name = f"{PROJECT}.events.{self._table}"
        return BigQuery(name, "insert_all", endpoint=self.proxy.url, policy=policy, concurrency=1)

    def poison(self, number: int) -> Event:
        return poisoned(number)

    def _most(self, number: int) -> int:
        return largest_that(lambda event: _request_size(event) <= MOST_REQUEST, number, MOST_REQUEST)

    def _refuse(self, request: Request) -> Answer | None:
        """Too large a request, and single rows, which are named although the others are in."""
        if len(request.body) > MOST_REQUEST:
            return Answer(413, b'{"error":{"code":413,"message":"Request payload size exceeds the limit"}}')
        if POISON not in request.body:
            return None
        sent = json.loads(request.body)
        bad = [i for i, row in enumerate(sent["rows"]) if POISON.decode() in json.dumps(row)]
        good = [row for i, row in enumerate(sent["rows"]) if i not in bad]
        if good:
            body = json.dumps({**sent, "rows": good}).encode()
            headers = {**request.headers, "content-length": str(len(body))}
            self.proxy.forward(replace(request, body=body, headers=headers))
        fault = {"reason": "invalid", "message": "This field: data is not valid JSON.", "location": "data"}
        errors = [{"index": index, "errors": [fault]} for index in bad]
        return Answer(200, json.dumps({"kind": KIND, "insertErrors": errors}).encode())

    def spoil_credential(self) -> None:
        body = b'{"error":{"code":401,"message":"Invalid Credentials","errors":[{"reason":"authError"}]}}'
        self.proxy.standing = Fault(status=401, body=body)

    def mend_credential(self) -> None:
        self.calm()
