"""A practice Splunk: HEC over plain or TLS HTTP/1.1 on loopback, faithful in its answers, faulty on command.

As a program of its own: `python -m pipelines.practice.splunk --port P [--token T] [--ids FILE]`.
"""

from __future__ import annotations

import itertools
import json
import ssl
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from pipelines.practice import http_server
from pipelines.practice.hec import (
    Acknowledgements,
    Indexed,
    Refused,
    Token,
    Verdict,
    ids_in,
    judge,
    judge_channel,
    judge_token,
    unpack,
)
from pipelines.practice.http_server import Answer, Request

# "steady": the cookie is set once for each indexer, and again only with another one, as most do. "renewed":
# with every answer another value for the same indexer, as AWS's Application Load Balancer does. "none": no
# cookie, each request goes to the next indexer.
Stickiness = Literal["steady", "renewed", "none"]
NAMES = {"steady": "LB", "renewed": "AWSALB"}


class Balancer:
    """Chooses an indexer for each request. `down` are those that it does not send to."""

    def __init__(self, indexers: int, stickiness: Stickiness) -> None:
        self._indexers = indexers
        self._stickiness = stickiness
        self._turns = itertools.count()
        self._bound: dict[str, int] = {}
        self.down: set[int] = set()

    def choose(self, cookies: str) -> tuple[int, str]:
        """The indexer for a request with this `Cookie` header, and a `Set-Cookie` value or ""."""
        name = NAMES.get(self._stickiness, "")
        if self._indexers == 1 or not name:
            return self._next(), ""
        given = dict(part.strip().partition("=")[::2] for part in cookies.split(";"))
        bound = self._bound.get(given.get(name, ""))
        known = bound is not None and bound not in self.down
        indexer = bound if bound is not None and known else self._next()
        if known and self._stickiness == "steady":
            return indexer, ""
        value = uuid.uuid4().hex
        self._bound[value] = indexer
        return indexer, f"{name}={value}; Path=/"

    def forget(self) -> None:
        """Lose every binding: who comes back with a cookie is bound anew, to the next indexer."""
        self._bound.clear()

    def _next(self) -> int:
        up = [number for number in range(self._indexers) if number not in self.down]
        return up[next(self._turns) % len(up)] if up else 0


TOKEN = "practice-hec-token"  # noqa: S105 (of a practice server on loopback)
MAX_BODY = 800 * 1024 * 1024  # Splunk Enterprise's default `max_content_length`
ROOT = "/services/collector"
EVENT_PATHS = (f"{ROOT}/event", ROOT, f"{ROOT}/event/1.0")
ACK_PATHS = (f"{ROOT}/ack", f"{ROOT}/ack/1.0")
HEALTH_PATHS = (f"{ROOT}/health", f"{ROOT}/health/1.0")
NOT_FOUND = b'{"text":"The requested URL was not found on this server.","code":404}'


class PracticeSplunk(http_server.PracticeServer):
    """A context manager that serves HEC on `url` until it is left; `events` is what it indexed.

    indexes: those that exist. ack_seconds: not None for a token with indexer acknowledgement; what is taken
    is acknowledged so much later (infinite: never), and lost when its indexer crashes before that.
    indexers, stickiness: how many stand behind a load balancer, and how that keeps to one of them.
    """

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
        ack_seconds: float | None = None,
        indexers: int = 1,
        stickiness: Stickiness = "steady",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(port, keep_events=keep_events, keep_ids=keep_ids, ids_file=ids_file, tls=tls)
        self.tokens = [Token(token, acknowledges=ack_seconds is not None)]
        self.indexes = set(indexes)
        self.max_body = max_body
        self.busy_code = 0
        self.ack_seconds = ack_seconds or 0.0
        self.events: list[Indexed] = []
        self.balancer = Balancer(indexers, stickiness)
        self._monotonic = monotonic
        self.indexers = [Acknowledgements() for _ in range(indexers)]

    @property
    def token(self) -> str:
        """The value of the first token."""
        return self.tokens[0].value

    # Faults on command

    def rotate(self, token: str) -> None:
        """From now on only `token` is good."""
        self.tokens[0].value = token

    def answer_code(self, code: int, number: int | None = None, times: int = 1, path: str = "") -> None:
        """Answer the next requests with one of HEC's codes and index nothing."""
        verdict = Verdict(code, number)
        self.answer(verdict.status, verdict.body, times=times, path=path)

    def busy(self, code: int = 9) -> None:
        """Answer every event with 8, 9, 18, 19, 20, 23, 26 or 27 until `busy(0)`."""
        self.busy_code = code

    def crash(self, indexer: int = 0) -> None:
        """One indexer ends and starts anew: what it had not acknowledged is lost, its channels too."""
        with self._changed:
            lost = self.indexers[indexer].crash(self._monotonic())
            gone = Counter(event.event_id for event in lost)
            objects = set(map(id, lost))
            self.count -= len(lost)
            self.events = [event for event in self.events if id(event) not in objects]
            kept = []
            for event_id in reversed(self.ids):
                if gone[event_id] > 0:
                    gone[event_id] -= 1
                else:
                    kept.append(event_id)
            self.ids = kept[::-1]

    # Serving

    def judge(self, request: Request) -> Answer:
        with self._changed:
            number, cookie = self.balancer.choose(request.headers.get("cookie", ""))
        try:
            status, body = self._judge(request, self.indexers[number])
        except Refused as refused:
            status, body = refused.verdict.status, refused.verdict.body
        return Answer(status, body, (("Set-Cookie", cookie),) if cookie else ())

    def _judge(self, request: Request, indexer: Acknowledgements) -> tuple[int, bytes]:
        if request.path in HEALTH_PATHS:
            raise Refused(self.busy_code or 17)  # never looks at the token
        if request.path not in EVENT_PATHS + ACK_PATHS or request.method != "POST":
            return 404, NOT_FOUND
        token = judge_token(request.headers, request.query, self.tokens)
        if request.path in ACK_PATHS:
            return self._poll(request, token, indexer)
        return self._take(request, token, indexer)

    def _poll(self, request: Request, token: Token, indexer: Acknowledgements) -> tuple[int, bytes]:
        if not token.acknowledges:
            raise Refused(14)
        channel = judge_channel(request.headers, request.query)
        asked = ids_in(request.body)
        with self._changed:
            acks = indexer.poll(channel, asked, self._monotonic())
        return 200, json.dumps({"acks": acks}, separators=(",", ":")).encode()

    def _take(self, request: Request, token: Token, indexer: Acknowledgements) -> tuple[int, bytes]:
        if self.busy_code:
            raise Refused(self.busy_code)
        channel = judge_channel(request.headers, request.query) if token.acknowledges else ""
        body = request.body
        if len(body) <= self.max_body:
            unpacked = unpack(body, request.headers.get("content-encoding", ""))
            if unpacked is None:
                return 415, b"<html>Unsupported Media Type"
            body = unpacked
        if len(body) > self.max_body:
            return 413, b"<html>Content-Length of %d too large" % len(body)
        indexed, verdict = judge(body, lambda index: self._allowed(index, token), token.index)
        return self._indexed(indexed, verdict, channel, indexer)

    def _indexed(
        self, indexed: Sequence[Indexed], verdict: Verdict, channel: str, indexer: Acknowledgements
    ) -> tuple[int, bytes]:
        with self._changed:
            if channel and indexed:
                # What stood before a bad object is taken as well, but no id is given for it.
                name = channel if verdict.code == 0 else "refused"
                ack_id = indexer.take(name, indexed, self._monotonic(), self.ack_seconds)
                if verdict.code == 0:
                    verdict = Verdict(0, ack_id=ack_id)
            if self._keep_events:
                self.events += indexed
            self.taken([one.event_id for one in indexed])
        return verdict.status, verdict.body

    def _allowed(self, index: str, token: Token) -> bool:
        return index in self.indexes and (not token.indexes or index in token.indexes)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; see `http_server.command`."""
    options = {"ack_seconds": "have indexer acknowledgement, which takes so long"}
    return http_server.command(
        "A practice Splunk HEC on loopback.", "token", TOKEN, PracticeSplunk, arguments, options
    )


if __name__ == "__main__":
    raise SystemExit(main())
