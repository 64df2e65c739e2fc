"""A practice Splunk: HEC over plain or TLS HTTP/1.1 on loopback, faithful in its answers, faulty on command.

As a program of its own: `python -m pipelines.local.practice.splunk --port P [--token T] [--ids FILE]`.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence

from pipelines.local.practice import http_server
from pipelines.local.practice.faults import Fault
from pipelines.local.practice.hec import Answer, Indexed, judge, judge_token, unpack
from pipelines.local.practice.http_wire import Request

TOKEN = "practice-hec-token"  # noqa: S105 (of a practice server on loopback)
MAX_BODY = 800 * 1024 * 1024  # Splunk Enterprise's default `max_content_length`
EVENT_PATHS = ("/services/collector/event", "/services/collector", "/services/collector/event/1.0")


class PracticeSplunk(http_server.PracticeServer):
    """A context manager that serves HEC on `url` until it is left; `events` is what it indexed."""

    def __init__(
        self,
        port: int = 0,
        token: str = TOKEN,
        indexes: Sequence[str] = ("main",),
        *,
        keep_events: bool = True,
        keep_ids: bool = True,
        ids_file: str | None = None,
        max_body: int = MAX_BODY,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, ids_file=ids_file, tls=tls)
        self.token = token
        self.disabled = False
        self.indexes = set(indexes)
        self.max_body = max_body
        self.busy_code = 0
        self.events: list[Indexed] = []

    # Faults on command

    def rotate(self, token: str) -> None:
        """From now on only `token` is good."""
        self.token = token

    def answer_code(self, code: int, number: int | None = None, times: int = 1) -> None:
        """Answer the next requests with one of HEC's codes and index nothing."""
        answer = Answer(code, number)
        self.answer(answer.status, answer.body, times=times)

    def busy(self, code: int = 9) -> None:
        """Answer everything with 9, 18, 19 or 20 until `busy(0)`."""
        self.busy_code = code

    # Serving

    def judge(self, request: Request, fault: Fault) -> tuple[int, bytes]:
        if request.path.startswith("/services/collector/health"):
            healthy = Answer(18 if self.busy_code else 17)  # never looks at the token
            return healthy.status, healthy.body
        if request.path not in EVENT_PATHS or request.method != "POST":
            return 404, b'{"text":"The requested URL was not found on this server.","code":404}'
        answer = judge_token(request.headers.get("authorization"), self.token, self.disabled)
        if answer is None and self.busy_code:
            answer = Answer(self.busy_code)
        if answer is not None:
            return answer.status, answer.body
        if len(request.body) > self.max_body:
            return 413, b"Content-Length of %d too large" % len(request.body)
        body = unpack(request.body, request.headers.get("content-encoding", ""))
        if body is None:
            return 415, b"Unsupported Media Type"
        if len(body) > self.max_body:
            return 413, b"Content-Length of %d too large" % len(body)
        indexed, answer = judge(body, self.indexes)
        if self._keep_events:
            self.events += indexed
        self.taken([one.event_id for one in indexed])
        return answer.status, fault.garbage or answer.body


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see `http_server.command`."""
    return http_server.command(
        "A practice Splunk HEC on loopback.", "token", TOKEN, PracticeSplunk, arguments
    )


if __name__ == "__main__":
    raise SystemExit(main())
