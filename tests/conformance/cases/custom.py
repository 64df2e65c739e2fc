"""A destination of somebody's own: the README's, against a service that takes one event a request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place, padded
from tests.conformance.cases.behind_http import BehindHttp
from tests.conformance.evidence import id_in
from tests.pipelines.example_destination import Audit
from tests.servers.http_proxy import HttpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.secret import LiteralSecret

TOKEN = "audit-93fa-for-nobodys-eyes"
MAX_BODY = 50_000
POISON = b"unreadable"


@dataclass(frozen=True)
class SmallAudit(Audit):
    """The README's destination, with a policy as --custom_destination gives it one."""

    policy: BatchPolicy = SMALL
    name: ClassVar[str] = "audit"


class AuditService(PracticeServer):
    """Takes one event a request, of at most MAX_BODY bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.taken_events: list[tuple[str, bytes]] = []

    def judge(self, request: Request) -> Answer:
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            return Answer(401, b"")
        if POISON in request.body or len(request.body) > MAX_BODY:
            return Answer(400, b"")
        self.taken_events.append((id_in(request.body), request.body))
        self.taken([id_in(request.body)])
        return Answer(200, b"")


@contextmanager
def case(place: Place) -> Iterator[Case]:
    with AuditService() as service, HttpFaultProxy(service.url) as proxy:
        yield CustomCase(proxy, service)


class CustomCase(BehindHttp):
    name = "custom (README)"
    secrets = (TOKEN,)
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": FORGETS,
        "gateway": "the README's destination takes every answer for its service's own",
        "retry_after": "the README's destination leaves it to the back-off",
        "credential": "the README's destination reads its token once, when it is opened",
        "rotate": "the README's destination reads its token once, when it is opened",
        "memo": "the README's destination keeps no memo",
        "interrupt": "the README's destination does not end a request that it waits for",
        "truncate": "the service's answer has no body",
    }

    def __init__(self, proxy: HttpFaultProxy, service: AuditService) -> None:
        super().__init__(proxy)
        self._service = service

    def destination(self, policy: BatchPolicy = SMALL) -> SmallAudit:
        return SmallAudit(self.proxy.url, LiteralSecret(TOKEN), policy)

    def biggest_policy(self) -> BatchPolicy:
        return BatchPolicy()

    def at_its_best(self) -> SmallAudit:
        """Each event is a request of its own, which the proxy would open a connection for."""
        return SmallAudit(self._service.url, LiteralSecret(TOKEN), self.biggest_policy())

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return list(self._service.taken_events)

    def poison(self, number: int) -> Event:
        event = padded(number, 300)
        return Event(event.id, event.type, event.created_at, event.raw.replace(b"xxxxxxxxxx", POISON, 1))

    def largest(self, number: int) -> Event:
        return padded(number, MAX_BODY)

    def too_large(self, number: int) -> Event:
        return padded(number, MAX_BODY + 1)
