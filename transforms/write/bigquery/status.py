"""The status of a failed call to BigQuery's Storage Write API, with what its details add."""

from __future__ import annotations

import contextlib
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.cloud.bigquery_storage_v1.types import storage
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from transforms.write.bigquery.reply import DEADLINE_EXCEEDED, Status
from transforms.write.over_http.outcome import MAX_RETRY_AFTER

# Where gRPC carries a google.rpc.Status.
DETAILS = "grpc-status-details-bin"
StorageError = storage.StorageError.pb()


def status_of_call(error: grpc.RpcError) -> Status:
    """The status with which a call ended."""
    code = error.code().value[0] if error.code() else DEADLINE_EXCEEDED
    status = status_pb2.Status(code=code, message=error.details() or "")
    for name, value in error.trailing_metadata() or ():
        if name == DETAILS:
            with contextlib.suppress(DecodeError):  # of something in between: the code alone has to do
                status.details.extend(status_pb2.Status.FromString(value).details)
    return status_of_reply(status)


def status_of_reply(status: Any) -> Status:
    """The status (google.rpc.Status) of one answer within a call."""
    detail, wait = "", None
    for packed in status.details:
        error, retry = StorageError(), error_details_pb2.RetryInfo()
        with contextlib.suppress(DecodeError, ValueError):  # a code that is newer than our messages
            if packed.Unpack(error):
                detail = StorageError.StorageErrorCode.Name(error.code)
            elif packed.Unpack(retry):
                wait = min(retry.retry_delay.ToNanoseconds() / 1e9, MAX_RETRY_AFTER)
    return Status(int(status.code), str(status.message), detail, wait)
