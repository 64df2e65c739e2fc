"""What the destinations over HTTP share: their service stands behind a proxy that can answer in its place."""

from __future__ import annotations

from pipelines.practice.faults import Fault
from tests.conformance.cases.behind_proxy import BehindProxy
from tests.servers.http_proxy import HttpFaultProxy


class BehindHttp(BehindProxy):
    """`proxy` is open as long as the case is in use."""

    busy_body = b""

    def __init__(self, proxy: HttpFaultProxy) -> None:
        super().__init__(proxy)
        self.proxy = proxy

    def busy(self, retry_after: str | None = None) -> None:
        headers = (("Retry-After", retry_after),) if retry_after else ()
        self.proxy.standing = Fault(status=503, body=self.busy_body, headers=headers)

    def gateway(self) -> None:
        self.proxy.loses_answers = True
