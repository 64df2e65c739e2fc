"""Pub/Sub: one message an event, at least once, so that a durable relay feeds a cluster or anybody else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from transforms import pubsub_names as names
from transforms.batch import BatchPolicy, batches
from transforms.event import Event
from transforms.readers import address_fault
from transforms.setting import setting, shared
from transforms.way_out import USUAL, WayOut
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Writer

ENDPOINT = "https://pubsub.googleapis.com"
# "Quotas and limits" of Pub/Sub: 1000 messages and 10 MB a request. 0.2 s is what readers of a topic expect
# of "live".
MAX_EVENTS = 1000
MAX_BYTES = 9_500_000
POLICY = BatchPolicy(max_events=MAX_EVENTS, max_bytes=9_000_000, max_age=0.2)

# Of a message in a request: both attributes with their names, and the lengths before each part.
MESSAGE_OVERHEAD = len(names.EVENT_ID) + len(names.EVENT_TYPE) + 32


@dataclass(frozen=True)
class PubSub(Destination):
    """Settings of a Pub/Sub topic. Raises ValueError for a name that no topic can have.

    topic: "projects/PROJECT/topics/TOPIC"; must exist.
    endpoint: root of another service with Pub/Sub's gRPC protocol, a regional one or an emulator; http://
        is an emulator and gets no credentials.
    way_out: the proxy, and the authorities to trust beside the usual ones.

    A message is the event's JSON as received, with the attributes `event_id` and `event_type`. What is sent
    again after an unclear answer repeats: readers tell by `event_id`, Dataflow by itself for ten minutes.
    """

    topic: str = setting(
        "Topic that events go to; it must exist. --pubsub_subscription reads them on Dataflow.",
        read=names.topic,
        placeholder="projects/PROJECT/topics/NAME",
        pattern=names.TOPIC,
        target=True,
        example="projects/my-project/topics/grantex-events",
    )
    endpoint: str | None = setting(
        "Root of a regional service; http:// is an emulator without credentials.",
        None,
        url="/google.pubsub",
        example="https://europe-west1-pubsub.googleapis.com",
    )
    way_out: WayOut = shared("way_out", USUAL)
    policy: BatchPolicy = batches(POLICY, "in one request", most_events=MAX_EVENTS, most_bytes=MAX_BYTES)
    # One request is packed while another waits for its answer: at 50 ms a round trip 40,000 events/s.
    concurrency: int = 2
    asked: Asked = asked_for()

    name: ClassVar[str] = "pubsub"
    title: ClassVar[str] = "Pub/Sub"

    def __post_init__(self) -> None:
        names.topic(self.topic)
        if fault := address_fault(self.endpoint):
            raise ValueError(f"endpoint {fault}")

    def size(self, event: Event) -> int:
        """Bytes of `event` in a request, at most."""
        return len(event.raw) + 4 * (len(event.id) + len(event.type)) + MESSAGE_OVERHEAD

    def target(self) -> str:
        """The topic, and the endpoint when it is another than Google's own."""
        return self.topic + (f" at {self.endpoint}" if self.endpoint else "")

    def open(self) -> Writer:
        """Connects when the first batch is written. Raises OSError when an authority cannot be read."""
        # Here, because gRPC is not everybody's.
        from transforms.write.pubsub.writer import PubSubWriter

        endpoint = self.endpoint or ENDPOINT
        anonymous = endpoint.startswith("http://")
        return PubSubWriter(self.topic, endpoint, self.way_out, anonymous=anonymous)
