"""The four calls of BigQuery's Storage Write API that exactly-once needs, over one gRPC channel.

Google's generated client is left out: its calls retry by themselves, which the outbox does, and the open
AppendRows call could not be ended from another thread.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import certifi
import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1.types import protobuf, storage, stream

from transforms.write.bigquery.credentials import GoogleToken
from transforms.write.over_http.connection import user_agent

# gRPC's core writes to stderr by itself, past every log format, and calls a GOAWAY worth it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

STORAGE_ENDPOINT = "https://bigquerystorage.googleapis.com"
SERVICE = "/google.cloud.bigquery.storage.v1.BigQueryWrite"
# An append takes some 100 ms; what takes longer than this is asked about by finalizing its stream.
APPEND_SECONDS = 30.0
CALL_SECONDS = 15.0

CreateRequest = storage.CreateWriteStreamRequest.pb()
FinalizeRequest = storage.FinalizeWriteStreamRequest.pb()
FinalizeResponse = storage.FinalizeWriteStreamResponse.pb()
AppendRequest = storage.AppendRowsRequest.pb()
AppendResponse = storage.AppendRowsResponse.pb()
WriteStream = stream.WriteStream.pb()
ProtoSchema = protobuf.ProtoSchema.pb()

OPTIONS = [
    ("grpc.enable_retries", 0),
    # Writers are closed one by one, each with its own connection.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own back-off goes up to 2 minutes, in which it fails calls without trying.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.primary_user_agent", user_agent()),
]


class Appends:
    """One open AppendRows call: append, wait for the answer, append again."""

    def __init__(self, call: Any, metadata: Sequence[tuple[str, str]]) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._replies: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._call = call(iter(self._requests.get, None), metadata=metadata)
        self.fresh = True  # the first request of a call carries the rows' schema
        self._reader = threading.Thread(target=self._read, name="bigquery-replies", daemon=True)
        self._reader.start()

    @property
    def ended(self) -> bool:
        """BigQuery ended the call, as it does after some minutes without a request."""
        return not self._replies.empty() or not self._reader.is_alive()

    def append(self, request: Any) -> Any:
        """The answer to `request`. Raises grpc.RpcError when the call ended instead, TimeoutError when
        nothing came within APPEND_SECONDS: then the rows may have been written or not."""
        self._requests.put(request)
        self.fresh = False
        try:
            reply = self._replies.get(timeout=APPEND_SECONDS)
        except queue.Empty:
            raise TimeoutError(f"no answer within {APPEND_SECONDS:.0f} s") from None
        if isinstance(reply, Exception):
            raise reply
        return reply

    def close(self) -> None:
        """End the call; an `append` that waits in another thread fails at once."""
        self._requests.put(None)
        self._call.cancel()

    def _read(self) -> None:
        try:
            for reply in self._call:
                self._replies.put(reply)
            self._replies.put(ConnectionResetError("BigQuery ended the call"))
        except Exception as error:  # noqa: BLE001 - raised again where the answer is awaited
            self._replies.put(error)


class StorageClient:
    """A channel for one writer. Raises OSError when `ca_file` cannot be read."""

    def __init__(self, endpoint: str | None, token: GoogleToken, ca_file: str | None = None) -> None:
        parts = urlsplit(endpoint or STORAGE_ENDPOINT)
        secure = parts.scheme != "http"
        target = parts.netloc if parts.port else f"{parts.netloc}:{443 if secure else 80}"
        self._token = token
        if secure:
            self._channel = grpc.secure_channel(target, _trusted(ca_file), options=OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)
        self._append = self._channel.stream_stream(
            f"{SERVICE}/AppendRows", AppendRequest.SerializeToString, AppendResponse.FromString
        )

    def create_stream(self, table: str) -> str:
        """A new COMMITTED stream of the table at this path: rows are visible once they are appended, and
        offsets tell a repeated append. Raises grpc.RpcError."""
        request = CreateRequest(parent=table, write_stream=WriteStream(type_=WriteStream.COMMITTED))
        name: str = self._call("CreateWriteStream", WriteStream, request, f"parent={quote(table)}").name
        return name

    def finalize(self, name: str) -> int:
        """Let nothing more into the stream; returns how many rows it has, now for ever. Raises
        grpc.RpcError."""
        request = FinalizeRequest(name=name)
        route = f"name={quote(name)}"
        return int(self._call("FinalizeWriteStream", FinalizeResponse, request, route).row_count)

    def connect(self, name: str) -> Appends:
        """An open call that appends to the stream."""
        return Appends(self._append, self._metadata(f"write_stream={quote(name)}"))

    def close(self) -> None:
        """End every call and the connection."""
        self._channel.close()

    def _call(self, method: str, response: Any, request: Any, route: str) -> Any:
        call = self._channel.unary_unary(
            f"{SERVICE}/{method}", type(request).SerializeToString, response.FromString
        )
        return call(request, timeout=CALL_SECONDS, metadata=self._metadata(route))

    def _metadata(self, route: str) -> Sequence[tuple[str, str]]:
        return [("x-goog-request-params", route), *self._token.headers().items()]


def append_request(name: str, offset: int, rows: Sequence[bytes], schema: Any | None) -> Any:
    """Rows for the stream from `offset` on; `schema` is their DescriptorProto, needed once a call."""
    request = AppendRequest(write_stream=name)
    request.offset.value = offset
    if schema is not None:
        request.proto_rows.writer_schema.proto_descriptor.CopyFrom(schema)
        request.trace_id = "grantex-beam:1"
    request.proto_rows.rows.serialized_rows.extend(rows)
    return request


def row_errors(reply: Any, count: int) -> list[tuple[int, str]]:
    """Index and message of each row of an append of `count` that its answer names."""
    return [(int(error.index), str(error.message)) for error in reply.row_errors if 0 <= error.index < count]


def _trusted(ca_file: str | None) -> Any:
    """The usual authorities and those in `ca_file`."""
    if ca_file is None:
        return grpc.ssl_channel_credentials()
    both = Path(certifi.where()).read_bytes() + b"\n" + Path(ca_file).read_bytes()
    return grpc.ssl_channel_credentials(root_certificates=both)
