"""Pub/Sub: Google's own fake behind a proxy that knows gRPC's frames, read by a client of the test's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import ClassVar

from tests.conformance.case import FORGETS, SMALL, Ability, Case, Place, largest_that, padded
from tests.conformance.cases.behind_proxy import BehindProxy
from tests.servers.pubsub import PROJECT, PubSubServer, running
from tests.servers.tcp_proxy import Http2Frames, TcpFaultProxy
from transforms.batch import BatchPolicy
from transforms.event import Event
from transforms.write.pubsub.destination import MAX_BYTES, PubSub
from transforms.write.pubsub.writer import PublishRequest, message

TOPIC = "events"
PATH = f"projects/{PROJECT}/topics/{TOPIC}"
# What gRPC's own servers take, and so the fake; Pub/Sub itself takes 10 MB.
MAX_REQUEST = 4 * 1024 * 1024
NOT_OF_THE_FAKE = "Google's fake refuses no message"
NO_CREDENTIAL = "Google's fake asks for no credential"


@contextmanager
def case(place: Place) -> Iterator[Case]:
    with (
        running(place.directory / "pubsub.log") as service,
        TcpFaultProxy(service.port, Http2Frames()) as proxy,
    ):
        yield PubSubCase(service, proxy)


class PubSubCase(BehindProxy):
    name = "pubsub"
    cannot: ClassVar[Mapping[Ability, str]] = {
        "reject": NOT_OF_THE_FAKE,
        "busy": "Google's fake is never busy",
        "gateway": "to gRPC a gateway's answer is a broken connection",
        "retry_after": "Pub/Sub does not say when to come back",
        "credential": NO_CREDENTIAL,
        "rotate": NO_CREDENTIAL,
        "kill": FORGETS,
        "memo": "Pub/Sub's writer keeps no memo",
    }

    def __init__(self, service: PubSubServer, proxy: TcpFaultProxy) -> None:
        super().__init__(proxy)
        self._service, self._proxy = service, proxy
        self._topic = service.topic(TOPIC)
        self._arrived: list[tuple[str, bytes]] = []

    def destination(self, policy: BatchPolicy = SMALL) -> PubSub:
        return PubSub(self._topic, f"http://127.0.0.1:{self._proxy.port}", policy=policy, concurrency=1)

    def biggest_policy(self) -> BatchPolicy:
        return BatchPolicy(1000, MAX_BYTES, 1.0)

    def arrived(self) -> Sequence[tuple[str, bytes]]:
        self._arrived += [(each.attributes["event_id"], each.data) for each in self._service.messages(TOPIC)]
        return self._arrived

    def largest(self, number: int) -> Event:
        return padded(number, most(number))

    def too_large(self, number: int) -> Event:
        return padded(number, most(number) + 1)


def most(number: int) -> int:
    """The size of the largest event that fits into a request by itself."""

    def fits(one: Event) -> bool:
        return len(PublishRequest(topic=PATH, messages=[message(one)]).SerializeToString()) <= MAX_REQUEST

    return largest_that(fits, number, MAX_REQUEST)
