"""The fault proxy for the Storage Write API, in front of a service that remembers what it was asked."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from pipelines.practice.faults import Fault
from tests.servers.grpc_proxy import APPEND, AppendRequest, AppendResponse, GrpcFaultProxy

FINALIZE = "/google.cloud.bigquery.storage.v1.BigQueryWrite/FinalizeWriteStream"
UNAVAILABLE, NOT_FOUND = 14, 5


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Counts appended rows, and finalizes streams whose name it likes."""

    def __init__(self) -> None:
        self.rows: list[bytes] = []
        self.metadata: dict[str, str] = {}
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers((self,))
        self.port = int(self._server.add_insecure_port("127.0.0.1:0"))
        self._server.start()

    def service(self, call: Any) -> Any:
        if call.method == APPEND:
            return grpc.stream_stream_rpc_method_handler(self._append)
        return grpc.unary_unary_rpc_method_handler(self._finalize)

    def _append(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.metadata = dict(context.invocation_metadata())
        for request in requests:
            self.rows += AppendRequest.FromString(request).proto_rows.rows.serialized_rows
            reply = AppendResponse()
            reply.append_result.offset.value = len(self.rows)
            yield reply.SerializeToString()

    def _finalize(self, request: bytes, context: Any) -> bytes:
        if request == b"unknown":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such stream")
        return b"finalized " + request

    def stop(self) -> None:
        self._server.stop(None)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.stop()


@pytest.fixture
def proxy(service: Service) -> Iterator[GrpcFaultProxy]:
    with GrpcFaultProxy(service.port) as running:
        yield running


class Call:
    """One AppendRows call: a request, then its answer."""

    def __init__(self, proxy: GrpcFaultProxy) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{proxy.port}")
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._replies = self._channel.stream_stream(APPEND, None, None)(
            iter(self._requests.get, None), metadata=[("x-goog-request-params", "write_stream=s")], timeout=10
        )

    def append(self, *rows: bytes) -> Any:
        request = AppendRequest(write_stream="s")
        request.proto_rows.rows.serialized_rows.extend(rows)
        self._requests.put(request.SerializeToString())
        return AppendResponse.FromString(next(self._replies))

    def close(self) -> None:
        self._requests.put(None)
        self._channel.close()


@pytest.fixture
def call(proxy: GrpcFaultProxy) -> Iterator[Call]:
    made = Call(proxy)
    yield made
    made.close()


def code(error: pytest.ExceptionInfo[grpc.RpcError]) -> int:
    return int(error.value.code().value[0])


def test_appends_and_answers_pass_unchanged(call: Call, service: Service) -> None:
    assert call.append(b"a", b"b").append_result.offset.value == 2
    assert call.append(b"c").append_result.offset.value == 3
    assert service.rows == [b"a", b"b", b"c"]
    assert service.metadata["x-goog-request-params"] == "write_stream=s"


def test_other_calls_pass_with_their_refusals(proxy: GrpcFaultProxy) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        finalize = channel.unary_unary(FINALIZE, None, None)
        assert finalize(b"s", timeout=10) == b"finalized s"
        with pytest.raises(grpc.RpcError) as error:
            finalize(b"unknown", timeout=10)
    assert code(error) == NOT_FOUND


def test_a_forced_status_keeps_the_rows_from_the_service(
    proxy: GrpcFaultProxy, call: Call, service: Service
) -> None:
    proxy.answer(UNAVAILABLE, b"try again")
    with pytest.raises(grpc.RpcError) as error:
        call.append(b"a")
    assert code(error) == UNAVAILABLE
    assert error.value.details() == "try again"
    assert service.rows == []
    assert Call(proxy).append(b"b").append_result.offset.value == 1


def test_a_standing_status_lasts(proxy: GrpcFaultProxy, service: Service) -> None:
    proxy.standing = Fault(status=UNAVAILABLE)
    for _ in range(2):
        with pytest.raises(grpc.RpcError):
            Call(proxy).append(b"a")
    proxy.standing = Fault()
    assert Call(proxy).append(b"b").append_result.offset.value == 1


def test_bad_rows_are_named_and_none_of_that_append_is_written(
    proxy: GrpcFaultProxy, call: Call, service: Service
) -> None:
    proxy.bad_rows = lambda rows: [index for index, row in enumerate(rows) if row == b"bad"]
    reply = call.append(b"a", b"bad", b"c", b"bad")
    assert [error.index for error in reply.row_errors] == [1, 3]
    assert reply.error.code == 3
    assert service.rows == []
    assert call.append(b"a", b"c").append_result.offset.value == 2, "the call itself goes on"
