"""A practice Datadog: the logs intake on loopback, faithful in its answers and limits, faulty on command.

What it does is from Datadog's API reference, "Send logs" v2. A log above 1 MB is cut and a log older than
18 h is dropped, and both are answered 202: that is why our side must see to them.

As a program of its own: `python -m pipelines.practice.datadog --port P [--key K] [--ids FILE]`.
"""

from __future__ import annotations

import json
import ssl
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import zstandard
from isal import isal_zlib
from isal.igzip_lib import IsalError

from pipelines.practice import http_server
from pipelines.practice.http_server import Answer, Request

KEY = "practice-datadog-key"
PATH = "/api/v2/logs"
MAX_BODY = 5_000_000  # uncompressed
MAX_LOG = 1_000_000
MAX_LOGS = 1000
MAX_AGE = 18 * 3600.0  # seconds into the past
MAX_AHEAD = 2 * 3600.0  # and into the future
VALIDATE_PATH = "/api/v1/validate"
VALID = b'{"valid":true}'
ACCEPTED = b"{}"


class Log(msgspec.Struct, frozen=True, gc=False):
    """One log as it was taken; what is not named here is read over."""

    message: str = ""
    ddsource: str = ""
    ddtags: str = ""
    hostname: str = ""
    service: str = ""
    timestamp: int | None = None  # milliseconds since the epoch
    id: str = ""


decode_logs = msgspec.json.Decoder(list[msgspec.Raw]).decode
decode_log = msgspec.json.Decoder(Log).decode


class PracticeDatadog(http_server.PracticeServer):
    """A context manager that serves the intake on `url` until it is left; `events` is what it took.

    cut: logs that were truncated; dropped: logs too old, or too far ahead, to be kept. now: wall clock in
    seconds.
    """

    def __init__(
        self,
        port: int = 0,
        key: str = KEY,
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        tls: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, ids_file=ids_file, tls=tls)
        self.key = key
        self.now = now
        self.cut = 0
        self.dropped = 0
        self.events: list[Log] = []

    def rotate(self, key: str) -> None:
        """From now on only `key` is good."""
        self.key = key

    def judge(self, request: Request) -> Answer:
        given = request.headers.get("dd-api-key")
        if request.path == VALIDATE_PATH and request.method == "GET":
            return Answer(200, VALID) if given == self.key else error(403, "Forbidden", "")
        if request.path != PATH or request.method != "POST":
            return error(404, "Not Found", "")
        if not given:
            return error(401, "Unauthorized", "")
        if given != self.key:
            return error(403, "Forbidden", "API key is invalid")
        body = unpack(request.body, request.headers.get("content-encoding", ""))
        if body is None:
            return error(400, "Bad Request", "the content could not be decompressed")
        if len(body) > MAX_BODY:
            return error(413, "Payload Too Large", "batch is above 5MB uncompressed")
        try:
            raws = logs_in(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return error(400, "Bad Request", "payload is not valid JSON")
        if len(raws) > MAX_LOGS:
            return error(413, "Payload Too Large", "more than 1000 logs in one request")
        try:
            found = [decode_log(raw) for raw in raws]
        except (msgspec.DecodeError, UnicodeDecodeError):
            return error(400, "Bad Request", "a log is not an object with text in its fields")
        self._take(raws, found)
        return Answer(202, ACCEPTED)

    def _take(self, raws: Sequence[Any], found: Sequence[Log]) -> None:
        oldest, newest = (self.now() - MAX_AGE) * 1000, (self.now() + MAX_AHEAD) * 1000
        kept = []
        for raw, log in zip(raws, found, strict=True):
            if log.timestamp is not None and not oldest <= log.timestamp <= newest:
                self.dropped += 1
                continue
            over = len(bytes(raw)) - MAX_LOG
            if over > 0:
                self.cut += 1
                log = msgspec.structs.replace(log, message=log.message[: max(0, len(log.message) - over)])
            kept.append(log)
        if self._keep_events:
            self.events += kept
        self.taken([log.id for log in kept])


def logs_in(body: bytes) -> Sequence[Any]:
    """The logs of a request: an array of objects, or one object. Raises msgspec.DecodeError."""
    return [msgspec.Raw(body)] if body.lstrip()[:1] == b"{" else decode_logs(body)


def unpack(body: bytes, encoding: str) -> bytes | None:
    """The body without its compression; None when that is unknown or broken."""
    if encoding in ("", "identity"):
        return body
    try:
        if encoding == "gzip":
            return bytes(isal_zlib.decompress(body, 31))
        if encoding == "zstd":
            return zstandard.ZstdDecompressor().decompress(body, max_output_size=MAX_BODY + 1)
        return zlib.decompress(body) if encoding == "deflate" else None
    except (IsalError, zlib.error, zstandard.ZstdError):  # type: ignore[misc]  # isal's is typed as a value
        return None


def error(status: int, title: str, detail: str) -> Answer:
    """An answer in the intake's form of errors."""
    said = {"status": str(status), "title": title, "detail": detail}
    return Answer(status, json.dumps({"errors": [said]}).encode())


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see `http_server.command`."""
    return http_server.command(
        "A practice Datadog logs intake on loopback.", "key", KEY, PracticeDatadog, arguments
    )


if __name__ == "__main__":
    raise SystemExit(main())
