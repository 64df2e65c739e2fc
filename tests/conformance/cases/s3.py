"""S3: SeaweedFS with credentials, its objects read through boto3."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar

import pytest

from pipelines.practice.faults import Fault
from tests.conformance.case import SMALL, Ability, Case, Place
from tests.conformance.cases.behind_http import BehindHttp
from tests.conformance.evidence import ndjson, same_line
from tests.servers.http_proxy import HttpFaultProxy
from tests.servers.seaweedfs import SeaweedFS
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.archive import POLICY
from transforms.write.contract import Destination
from transforms.write.s3.destination import S3

BUSY = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


@contextmanager
def case(place: Place) -> Iterator[Case]:
    seaweedfs: SeaweedFS = place.server("seaweedfs")
    with HttpFaultProxy(seaweedfs.endpoint) as proxy:
        yield S3Case(proxy, seaweedfs, place.name, place.environment)


class S3Case(BehindHttp):
    name = "s3"
    once = True
    once_over_crashes = True
    busy_body = BUSY
    cannot: ClassVar[Mapping[Ability, str]] = {
        "kill": "SeaweedFS does not promise to keep over kill -9 what it has acknowledged",
        "interrupt": "boto3 has no way to end a request that it waits for",
        "reject": "S3 refuses no event for what it is",
        "size": "an object may have 5 GB, more than any event",
    }

    def __init__(
        self, proxy: HttpFaultProxy, service: SeaweedFS, bucket: str, environment: pytest.MonkeyPatch
    ) -> None:
        super().__init__(proxy)
        self._service, self._bucket, self._environment = service, bucket, environment
        self.secrets = (service.secret_key,)
        service.client().create_bucket(Bucket=bucket)
        environment.delenv("AWS_PROFILE", raising=False)
        environment.setenv("AWS_ACCESS_KEY_ID", service.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", service.secret_key)

    def destination(self, policy: BatchPolicy = SMALL) -> Destination:
        return S3(self._bucket, endpoint=self.proxy.url, policy=policy, concurrency=1)

    def same(self, sent: Event, stored: bytes) -> bool:
        return same_line(sent.raw, stored)

    def biggest_policy(self) -> BatchPolicy:
        return replace(POLICY, max_age=1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        objects = self._service.objects(self._bucket)
        return [line for _, body in sorted(objects.items()) for line in ndjson(gzip.decompress(body))]

    def spoil_credential(self) -> None:
        self._environment.setenv("AWS_ACCESS_KEY_ID", "somebody-else")

    def revoke_credential(self) -> None:
        """SeaweedFS reads its keys once, so the proxy says what S3 says of a session that is over."""
        self.proxy.standing = Fault(status=400, body=EXPIRED)

    def mend_credential(self) -> None:
        self.proxy.calm()
        self._environment.setenv("AWS_ACCESS_KEY_ID", self._service.access_key)
