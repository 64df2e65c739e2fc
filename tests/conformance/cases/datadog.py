"""Datadog: the practice intake, whose logs are what the explorer would show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

import pytest

from pipelines.practice import datadog as intake
from pipelines.practice.datadog import PracticeDatadog, unpack
from pipelines.practice.http_server import Answer, Request
from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place, largest_that, padded
from tests.conformance.cases.behind_http import BehindHttp
from tests.servers.http_proxy import HttpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.secret import EnvSecret
from transforms.write.datadog.destination import MAX_BYTES, MAX_EVENTS, Datadog
from transforms.write.datadog.log import MAX_LOG

KEY = "dd-4c10-for-nobodys-eyes"
NEW_KEY = "dd-5d21-for-nobodys-eyes"
VARIABLE = "CONFORMANCE_DD_API_KEY"
POISON = b"unreadable"


@contextmanager
def case(place: Place) -> Iterator[Case]:
    with PracticeDatadog(key=KEY) as service, HttpFaultProxy(service.url) as proxy:
        yield DatadogCase(proxy, service, place.environment)


class DatadogCase(BehindHttp):
    name = "datadog"
    secrets = (KEY, NEW_KEY)
    cuts = True
    cannot: ClassVar[Mapping[Ability, str]] = {"kill": FORGETS, "memo": "Datadog's writer keeps no memo"}
    busy_body = b'{"errors":[{"status":"503","title":"Service Unavailable","detail":""}]}'

    def __init__(
        self, proxy: HttpFaultProxy, service: PracticeDatadog, environment: pytest.MonkeyPatch
    ) -> None:
        super().__init__(proxy)
        self._service, self._environment = service, environment
        environment.setenv(VARIABLE, KEY)

    def destination(self, policy: BatchPolicy = SMALL) -> Datadog:
        return Datadog(EnvSecret(VARIABLE), endpoint=self.proxy.url, policy=policy, concurrency=1)

    def biggest_policy(self) -> BatchPolicy:
        return BatchPolicy(MAX_EVENTS, MAX_BYTES, 1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return [(one.id, one.message.encode(errors="surrogatepass")) for one in self._service.events]

    def is_marked_as_cut(self, sent: Event) -> bool:
        (log,) = [one for one in self._service.events if one.id == sent.id]
        message = log.message.encode(errors="surrogatepass")
        whole, mark, _ = message.partition(" … [cut by grantex-beam".encode())
        whole = whole.removesuffix("\ufffd".encode())  # the cut went through a character
        return bool(mark) and sent.raw.startswith(whole) and "grantex_cut:true" in log.ddtags.split(",")

    def poison(self, number: int) -> Event:
        """Datadog names no log: the whole request is refused as long as this one is in it."""
        self.proxy.judge_first = refuse_poison
        event = padded(number, 300)
        return Event(event.id, event.type, event.created_at, event.raw.replace(b"xxxxxxxxxx", POISON, 1))

    def largest(self, number: int) -> Event:
        return padded(number, self._most(number))

    def too_large(self, number: int) -> Event:
        return padded(number, self._most(number) + 1)

    def _most(self, number: int) -> int:
        size = self.destination().size
        return largest_that(lambda event: size(event) < MAX_LOG, number, MAX_LOG)

    def spoil_credential(self) -> None:
        self._environment.setenv(VARIABLE, NEW_KEY)

    def revoke_credential(self) -> None:
        self._service.rotate(NEW_KEY)

    def mend_credential(self) -> None:
        self._environment.setenv(VARIABLE, self._service.key)


def refuse_poison(request: Request) -> Answer | None:
    body = unpack(request.body, request.headers.get("content-encoding", ""))
    if body is not None and POISON in body:
        return intake.error(400, "Bad Request", "a log cannot be read")
    return None
