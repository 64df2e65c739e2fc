"""Google Cloud Storage: a practice one, as no emulator at hand knows conditions; its objects as they lie."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

from pipelines.practice.faults import Fault
from pipelines.practice.gcs import PracticeGCS, error
from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place
from tests.conformance.cases.behind_http import BehindHttp
from tests.conformance.evidence import ndjson, same_line
from tests.servers.http_proxy import HttpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.archive import POLICY
from transforms.write.contract import Destination
from transforms.write.gcs.destination import GCS

EXPIRED = error(401, "Invalid Credentials")


@contextmanager
def case(place: Place) -> Iterator[Case]:
    with PracticeGCS() as service, HttpFaultProxy(service.url) as proxy:
        yield GCSCase(proxy, service)


class GCSCase(BehindHttp):
    name = "gcs"
    once = True
    once_over_crashes = True
    busy_body = error(503, "We encountered an internal error. Please try again.").body
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": FORGETS,
        "reject": "Cloud Storage refuses no event for what it is",
        "size": "an object may have 5 TB, more than any event",
        "credential": "an emulator is asked without one; what a refused one means is tested by itself",
    }

    def __init__(self, proxy: HttpFaultProxy, service: PracticeGCS) -> None:
        super().__init__(proxy)
        self._service = service

    def destination(self, policy: BatchPolicy = SMALL) -> Destination:
        return GCS(self._service.bucket, endpoint=self.proxy.url, policy=policy, concurrency=1)

    def same(self, sent: Event, stored: bytes) -> bool:
        return same_line(sent.raw, stored)

    def biggest_policy(self) -> BatchPolicy:
        return replace(POLICY, max_age=1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        objects = sorted(self._service.objects.items())
        return [line for _, stored in objects for line in ndjson(gzip.decompress(stored.data))]

    def revoke_credential(self) -> None:
        """The proxy says what Cloud Storage says of a token that is over."""
        self.proxy.standing = Fault(status=EXPIRED.status, body=EXPIRED.body)

    def mend_credential(self) -> None:
        self.proxy.calm()
