"""What the destinations over HTTP share: their service stands behind a fault proxy."""

from __future__ import annotations

from pipelines.local.practice.faults import Fault
from tests.conformance.case import Case, When
from tests.servers.http_proxy import HttpFaultProxy


class BehindHttp(Case):
    """`proxy` is open as long as the case is in use."""

    busy_body = b""

    def __init__(self, proxy: HttpFaultProxy) -> None:
        self.proxy = proxy

    def busy(self, retry_after: str | None = None) -> None:
        headers = (("Retry-After", retry_after),) if retry_after else ()
        self.proxy.standing = Fault(status=503, body=self.busy_body, headers=headers)

    def calm(self) -> None:
        self.proxy.calm()

    def hang(self) -> None:
        self.proxy.hang()

    def swallow(self) -> None:
        self.proxy.swallow()

    def slow(self, seconds: float) -> None:
        self.proxy.slow(seconds)

    def reset(self, when: When) -> None:
        self.proxy.reset(when)

    def truncate(self) -> None:
        self.proxy.cut_answer()

    def down(self) -> None:
        self.proxy.down()

    def up(self) -> None:
        self.proxy.up()
