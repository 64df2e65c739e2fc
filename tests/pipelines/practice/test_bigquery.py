"""The practice BigQuery itself, asked by Google's own Storage Write client and over REST."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from google.api_core.exceptions import GoogleAPICallError
from google.cloud.bigquery_storage_v1.services.big_query_write import BigQueryWriteClient
from google.cloud.bigquery_storage_v1.services.big_query_write.transports import BigQueryWriteGrpcTransport
from google.cloud.bigquery_storage_v1.types import AppendRowsRequest, ProtoRows, WriteStream

from pipelines.practice import bigquery_storage, bigquery_tables
from pipelines.practice.bigquery import PracticeBigQuery
from tests.transforms.write.encodings import event
from transforms.write.bigquery.rows import descriptor, json_row, proto_row
from transforms.write.bigquery.table import definition, parse_table

TABLE = parse_table("practice.grantex.events")
DATASETS = "/bigquery/v2/projects/practice/datasets"
INSERT = f"{DATASETS}/grantex/tables/events/insertAll"
Code = grpc.StatusCode


@pytest.fixture
def server() -> Iterator[PracticeBigQuery]:
    with PracticeBigQuery() as running:
        yield running


def ask(server: PracticeBigQuery, method: str, path: str, content: object = None) -> tuple[int, Any]:
    with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
        answer = client.request(method, server.url + path, json=content)
    return answer.status_code, answer.json()


def make_table(server: PracticeBigQuery) -> None:
    assert ask(server, "POST", f"{DATASETS}/grantex/tables", definition(TABLE, "typed"))[0] == 200


# REST


def test_a_table_is_made_once_and_is_there_with_its_columns(server: PracticeBigQuery) -> None:
    path = f"{DATASETS}/grantex/tables/events"
    status, said = ask(server, "GET", path)
    assert (status, said["error"]["errors"][0]["reason"]) == (404, "notFound")
    assert said["error"]["message"] == "Not found: Table practice:grantex.events"
    make_table(server)
    status, table = ask(server, "GET", path)
    assert (status, table["type"]) == (200, "TABLE")
    assert table["schema"] == definition(TABLE, "typed")["schema"]
    status, said = ask(server, "POST", f"{DATASETS}/grantex/tables", definition(TABLE, "typed"))
    assert (status, said["error"]["errors"][0]["reason"]) == (409, "duplicate")
    assert ask(server, "POST", f"{DATASETS}/grantex/tables", {"no": "table"})[0] == 400


def test_one_dataset_is_there_and_no_other(server: PracticeBigQuery) -> None:
    assert ask(server, "GET", f"{DATASETS}/grantex")[0] == 200
    assert ask(server, "GET", f"{DATASETS}/other")[0] == 404
    assert ask(server, "POST", f"{DATASETS}/other/tables", definition(TABLE, "typed"))[0] == 404
    assert ask(server, "GET", "/elsewhere")[0] == 404


def rows(*changes: dict[str, object]) -> list[dict[str, object]]:
    return [{"json": {"event_id": f"e{n}", **change}} for n, change in enumerate(changes)]


def test_insert_all_takes_the_good_rows_when_it_may_skip_others(server: PracticeBigQuery) -> None:
    make_table(server)
    asked = {"skipInvalidRows": True, "rows": rows({}, {"more": 1}, {"event_id": None}, {"data": "{"}, {})}
    status, said = ask(server, "POST", INSERT, asked)
    assert status == 200
    assert [(one["index"], one["errors"][0]["reason"]) for one in said["insertErrors"]] == [
        (1, "invalid"),
        (2, "invalid"),
        (3, "invalid"),
    ]
    assert server.ids == ["e0", "e4"]


def test_insert_all_stops_at_one_bad_row_otherwise(server: PracticeBigQuery) -> None:
    make_table(server)
    status, said = ask(server, "POST", INSERT, {"rows": rows({}, {"more": 1}, {})})
    assert status == 200
    assert [(one["index"], one["errors"][0]["reason"]) for one in said["insertErrors"]] == [
        (1, "invalid"),
        (0, "stopped"),
        (2, "stopped"),
    ]
    assert said["insertErrors"][0]["errors"][0]["message"] == "no such field: more."
    assert server.ids == []


def test_insert_all_drops_an_insert_id_that_it_had_lately(
    server: PracticeBigQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_table(server)
    monkeypatch.setattr(bigquery_tables, "MOST_INSERT_IDS", 2)
    for name in ("a", "a", "b", "c", "a"):
        asked = {"rows": [{"insertId": name, "json": {"event_id": name}}]}
        assert ask(server, "POST", INSERT, asked) == (200, {"kind": "bigquery#tableDataInsertAllResponse"})
    assert server.ids == ["a", "b", "c", "a"]


def test_insert_all_takes_what_our_writer_makes_and_no_nonsense(server: PracticeBigQuery) -> None:
    make_table(server)
    with httpx.Client(trust_env=False, verify=False, timeout=5) as client:
        rows = [{"insertId": event(7).id, "json": json_row(event(7), "typed")}]
        body = json.dumps({"rows": rows}).encode()
        assert "insertErrors" not in client.post(server.url + INSERT, content=body).json()
        assert client.post(server.url + INSERT, content=b"{").status_code == 400
        assert client.post(server.url + INSERT, content=b'{"rows":[]}').status_code == 400
        assert client.post(server.url + INSERT, content=b"{" + b" " * 10_000_000).status_code == 413
    assert server.ids == [event(7).id]


# Storage Write


@pytest.fixture
def client(server: PracticeBigQuery) -> Iterator[BigQueryWriteClient]:
    target = server.storage_url.removeprefix("http://")
    with grpc.insecure_channel(target, options=[("grpc.enable_http_proxy", 0)]) as channel:
        yield BigQueryWriteClient(transport=BigQueryWriteGrpcTransport(channel=channel))


@pytest.fixture
def stream(server: PracticeBigQuery, client: BigQueryWriteClient) -> str:
    make_table(server)
    return create(client)


def create(
    client: BigQueryWriteClient, table: str = TABLE.path, kind: Any = WriteStream.Type.COMMITTED
) -> str:
    return str(client.create_write_stream(parent=table, write_stream=WriteStream(type_=kind)).name)


def request(stream: str, offset: int, serialized: Sequence[bytes], schema: Any = None) -> AppendRowsRequest:
    asked = AppendRowsRequest(write_stream=stream, offset=offset)
    asked.proto_rows.rows = ProtoRows(serialized_rows=serialized)
    if schema is not None:
        asked.proto_rows.writer_schema.proto_descriptor = schema
    return asked


def append(client: BigQueryWriteClient, *requests: AppendRowsRequest) -> list[Any]:
    return list(client.append_rows(iter(requests)))


def some(first: int, count: int) -> list[bytes]:
    return [proto_row(event(n), "typed") for n in range(first, first + count)]


TYPED = descriptor("typed")


def test_rows_go_in_at_their_offset_and_the_row_count_says_so(
    server: PracticeBigQuery, client: BigQueryWriteClient, stream: str
) -> None:
    said = append(client, request(stream, 0, some(0, 3), TYPED), request(stream, 3, some(3, 2)))
    assert [one.append_result.offset for one in said] == [0, 3]
    assert [one.error.code for one in said] == [0, 0]
    assert server.ids == [event(n).id for n in range(5)]
    assert client.get_write_stream(name=stream).name == stream
    assert client.finalize_write_stream(name=stream).row_count == 5
    assert client.finalize_write_stream(name=stream).row_count == 5


def test_an_offset_is_taken_once_and_none_is_left_out(
    server: PracticeBigQuery, client: BigQueryWriteClient, stream: str
) -> None:
    said = append(
        client,
        request(stream, 0, some(0, 3), TYPED),
        request(stream, 0, some(0, 3)),
        request(stream, 4, some(3, 1)),
        request(stream, 3, some(3, 1)),
    )
    codes = [one.error.code for one in said]
    assert codes == [0, Code.ALREADY_EXISTS.value[0], Code.OUT_OF_RANGE.value[0], 0]
    assert server.count == 4


def test_a_finalized_stream_takes_nothing_more(
    server: PracticeBigQuery, client: BigQueryWriteClient, stream: str
) -> None:
    client.finalize_write_stream(name=stream)
    [said] = append(client, request(stream, 0, some(0, 1), TYPED))
    assert said.error.code == Code.FAILED_PRECONDITION.value[0]
    assert server.count == 0


def test_rows_at_fault_are_named_and_none_goes_in(
    server: PracticeBigQuery, client: BigQueryWriteClient, stream: str
) -> None:
    without_id = proto_row(event(1), "typed").partition(event(1).id.encode())[2]
    no_json = b"\x0a\x01a\x22\x01{"
    [said, after] = append(
        client,
        request(stream, 0, [*some(0, 1), without_id, no_json, b"\xff"], TYPED),
        request(stream, 0, some(0, 1)),
    )
    assert said.error.code == Code.INVALID_ARGUMENT.value[0]
    assert [(one.index, one.message) for one in said.row_errors] == [
        (1, "Missing required field: event_id."),
        (2, "Invalid JSON in field data."),
        (3, "the row cannot be parsed"),
    ]
    assert after.error.code == 0
    assert server.ids == [event(0).id]


@pytest.mark.parametrize(
    ("wrong", "code", "says"),
    [
        (lambda name: request(name, 0, some(0, 1)), Code.INVALID_ARGUMENT, "writer_schema"),
        (lambda name: request(f"{name}x", 0, some(0, 1), TYPED), Code.NOT_FOUND, "not found"),
        (lambda name: request(name, 0, [b"x" * 10_500_000], TYPED), Code.INVALID_ARGUMENT, "too large"),
        (lambda name: request(name, 0, some(0, 1), other_columns()), Code.INVALID_ARGUMENT, "more fields"),
    ],
)
def test_a_request_at_fault_ends_the_call(
    client: BigQueryWriteClient, stream: str, wrong: Any, code: Any, says: str
) -> None:
    with pytest.raises(GoogleAPICallError, match=says) as caught:
        append(client, wrong(stream))
    assert caught.value.grpc_status_code is code


def other_columns() -> Any:
    schema = descriptor("typed")
    schema.field.add(name="more", number=9, label=1, type=9)
    return schema


def test_streams_belong_to_tables_and_are_forgotten_one_day(
    client: BigQueryWriteClient, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(GoogleAPICallError, match="not found"):
        create(client, f"{TABLE.path}x")
    with pytest.raises(GoogleAPICallError, match="COMMITTED"):
        create(client, kind=WriteStream.Type.PENDING)
    monkeypatch.setattr(bigquery_storage, "MOST_STREAMS", 1)
    create(client)
    with pytest.raises(GoogleAPICallError, match="not found"):
        client.finalize_write_stream(name=stream)


def test_it_comes_back_on_the_same_ports(server: PracticeBigQuery) -> None:
    before = server.url, server.storage_url
    server.down()
    server.up()
    assert (server.url, server.storage_url) == before
    assert ask(server, "GET", f"{DATASETS}/grantex")[0] == 200
