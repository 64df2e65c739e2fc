"""A fault proxy for HTTP: between a writer and a real service, faithful until it is told otherwise.

Its faults are those of the practice servers (`pipelines.practice.faults`) and those below.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable
from urllib.parse import urlsplit

from pipelines.practice.faults import Fault
from pipelines.practice.http_server import Answer, PracticeServer, Request, ResetNow

# Longer than any service of the tests takes; a request that hangs is the proxy's own doing.
UPSTREAM_SECONDS = 30.0
# They belong to one connection, not to the request.
PER_CONNECTION = frozenset({"connection", "expect", "keep-alive"})
# What the answer to the client has of its own.
OUR_OWN = PER_CONNECTION | {"content-length", "content-type", "transfer-encoding"}

Judge = Callable[[Request], Answer | None]


class HttpFaultProxy(PracticeServer):
    """A context manager that serves `upstream` (a URL without path) on `url` until it is left.

    standing: the fault of every request that has none of its own, until `calm`.
    loses_answers: what the service takes is answered with a gateway's 504, until `calm`.
    judge_first: may answer a request itself, or leave it to the service with None; it may call `forward`.
    """

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(port, keep_events=False)
        self.standing = Fault()
        self._swallowing = False
        self.loses_answers = False
        self.judge_first: Judge | None = None
        self._upstream = urlsplit(upstream).netloc

    def swallow(self) -> None:
        """Requests are read and vanish: the service never hears of them, the client not until `calm`."""
        self._swallowing = True
        self.hang()

    def calm(self) -> None:
        """The end of all but faults of one request; what hung goes on to the service now."""
        self.standing = Fault()
        self.loses_answers = False
        self._swallowing = False
        self.release()

    def hold(self) -> None:
        swallowed = self._swallowing
        super().hold()
        if swallowed:
            raise ResetNow

    def next_fault(self, path: str) -> Fault:
        fault = super().next_fault(path)
        return self.standing if fault == Fault() else fault

    def judge(self, request: Request) -> Answer:
        """The service's own answer, unless the proxy has been told otherwise."""
        answer = self.judge_first(request) if self.judge_first else None
        answer = answer or self.forward(request)
        return Answer(504, b"<html>Gateway Time-out</html>") if self.loses_answers else answer

    def forward(self, request: Request) -> Answer:
        """What the service says to `request`, which it gets as it was sent: signed headers stay valid."""
        connection = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_SECONDS)
        try:
            connection.putrequest(request.method, request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name not in PER_CONNECTION:
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in OUR_OWN]
            return Answer(answer.status, answer.read(), tuple(headers))
        except http.client.HTTPException:
            raise ResetNow from None
        finally:
            connection.close()
