"""Splunk: the practice HEC, whose index is what a search would find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from pipelines.practice.splunk import PracticeSplunk
from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place, largest_that, padded
from tests.conformance.cases.behind_http import BehindHttp
from tests.servers.http_proxy import HttpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.secret import EnvSecret
from transforms.write.splunk.destination import POLICY, Splunk

TOKEN = "hec-7d21-for-nobodys-eyes"
NEW_TOKEN = "hec-8e32-for-nobodys-eyes"
VARIABLE = "CONFORMANCE_HEC_TOKEN"
# What Splunk Cloud advises for a request, and the destination's own default.
MAX_BODY = 1_000_000


@contextmanager
def case(place: Place) -> Iterator[Case]:
    with (
        PracticeSplunk(token=TOKEN, max_body=MAX_BODY) as service,
        HttpFaultProxy(service.url) as proxy,
    ):
        yield SplunkCase(proxy, service, place.environment)


class SplunkCase(BehindHttp):
    name = "splunk"
    secrets = (TOKEN, NEW_TOKEN)
    cannot: ClassVar[Mapping[Ability, str]] = {"kill": FORGETS, "memo": "Splunk's writer keeps no memo"}
    busy_body = b'{"text":"Server is busy","code":9}'

    def __init__(
        self, proxy: HttpFaultProxy, service: PracticeSplunk, environment: pytest.MonkeyPatch
    ) -> None:
        super().__init__(proxy)
        self._service, self._environment = service, environment
        environment.setenv(VARIABLE, TOKEN)

    def destination(self, policy: BatchPolicy = SMALL) -> Splunk:
        return Splunk(self.proxy.url, EnvSecret(VARIABLE), policy=policy, concurrency=1)

    def biggest_policy(self) -> BatchPolicy:
        return replace(POLICY, max_age=1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        return [(one.event_id, bytes(one.event)) for one in self._service.events]

    def poison(self, number: int) -> Event:
        return replace_raw(padded(number, 200), b'""')  # code 13, "Event field cannot be blank"

    def largest(self, number: int) -> Event:
        return padded(number, self._most(number))

    def too_large(self, number: int) -> Event:
        return padded(number, self._most(number) + 1)

    def _most(self, number: int) -> int:
        encode = self.destination().encode
        return largest_that(lambda event: len(encode([event])) <= MAX_BODY, number, MAX_BODY)

    def spoil_credential(self) -> None:
        self._environment.setenv(VARIABLE, NEW_TOKEN)

    def revoke_credential(self) -> None:
        self._service.rotate(NEW_TOKEN)

    def mend_credential(self) -> None:
        self._environment.setenv(VARIABLE, self._service.token)


def replace_raw(event: Event, raw: bytes) -> Event:
    return Event(event.id, event.type, event.created_at, raw)
