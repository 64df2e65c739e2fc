"""A fault proxy for BigQuery's Storage Write API: it refuses appends by status, and rows by name.

bqemulator does neither. What is not refused goes to it and comes back unchanged.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1.types import storage

from pipelines.practice.faults import Fault, FaultCommands

APPEND = "/google.cloud.bigquery.storage.v1.BigQueryWrite/AppendRows"
AppendRequest = storage.AppendRowsRequest.pb()
AppendResponse = storage.AppendRowsResponse.pb()
FIELDS_CORRUPTED = 1  # RowError.RowErrorCode
INVALID_ARGUMENT = 3
STATUS = {status.value[0]: status for status in grpc.StatusCode}
# Each open AppendRows call holds one.
THREADS = 32
SIZE = [("grpc.max_receive_message_length", 16 * 1024 * 1024)]

Rows = list[bytes]


class GrpcFaultProxy(FaultCommands):
    """A context manager that serves the service at `upstream` (a port of loopback) on `port`.

    `answer(status)` takes a gRPC status code and ends the call with it, instead of appending; with
    `reset="after"` the rows are appended first.
    standing: the fault of every append that has none of its own.
    bad_rows: the indexes of the rows of an append that the service refuses for good; none of that append's
    rows are written then.
    """

    def __init__(self, upstream: int) -> None:
        super().__init__()
        self.standing = Fault()
        self.bad_rows: Callable[[Rows], list[int]] = lambda rows: []
        self._channel = grpc.insecure_channel(f"127.0.0.1:{upstream}", options=SIZE)
        self._server = grpc.server(futures.ThreadPoolExecutor(THREADS), options=SIZE)
        self._server.add_generic_rpc_handlers((_Handler(self),))
        self.port = int(self._server.add_insecure_port("127.0.0.1:0"))

    def __enter__(self) -> GrpcFaultProxy:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None)
        self._channel.close()

    def next_fault(self, path: str) -> Fault:
        fault = super().next_fault(path)
        return self.standing if fault == Fault() else fault

    def call(self, method: str, request: bytes, context: Any) -> bytes:
        """Any call but AppendRows."""
        upstream = self._channel.unary_unary(method, None, None)
        try:
            reply: bytes = upstream(request, metadata=metadata(context), timeout=context.time_remaining())
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())
        return reply

    def append(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """One AppendRows call: each request is refused by the proxy or answered by the service."""
        sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        replies = self._channel.stream_stream(APPEND, None, None)(
            iter(sent.get, None), metadata=metadata(context)
        )
        context.add_callback(replies.cancel)
        try:
            for request in requests:
                fault = self.next_fault(APPEND)
                if fault.status and fault.reset != "after":
                    context.abort(STATUS[fault.status], fault.body.decode())
                refusal = self._refusal(request)
                if refusal is not None:
                    yield refusal
                    continue
                sent.put(request)
                reply = next(replies)
                if fault.status:
                    context.abort(STATUS[fault.status], fault.body.decode())
                yield reply
        except StopIteration:  # the service ended the call in an orderly way
            return
        except grpc.RpcError as error:
            if not isinstance(error, grpc.Call):  # the client has gone
                return
            context.abort(error.code(), error.details())
        finally:
            sent.put(None)

    def _refusal(self, request: bytes) -> bytes | None:
        rows = list(AppendRequest.FromString(request).proto_rows.rows.serialized_rows)
        bad = self.bad_rows(rows)
        if not bad:
            return None
        reply = AppendResponse()
        reply.error.code = INVALID_ARGUMENT
        reply.error.message = "Errors found while processing rows. Please refer to the row_errors field."
        for index in bad:
            reply.row_errors.add(index=index, code=FIELDS_CORRUPTED, message="Invalid JSON in field data.")
        return bytes(reply.SerializeToString())


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Hands every method to the proxy, as bytes."""

    def __init__(self, proxy: GrpcFaultProxy) -> None:
        self._proxy = proxy

    def service(self, call: Any) -> Any:
        method = call.method
        if method == APPEND:
            return grpc.stream_stream_rpc_method_handler(self._proxy.append)
        return grpc.unary_unary_rpc_method_handler(
            lambda request, context: self._proxy.call(method, request, context)
        )


def metadata(context: Any) -> list[tuple[str, str]]:
    """What the client sent beside the request, without what gRPC writes itself."""
    return [
        (key, value)
        for key, value in context.invocation_metadata()
        if key not in ("user-agent", "te") and not key.startswith("grpc-")
    ]
