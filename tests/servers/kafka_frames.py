"""Kafka's frames as a proxy needs them: which are produce requests, and how a broker refuses one.

Layouts are those of https://kafka.apache.org/protocol; from version 9 on lengths are variable and every
structure ends with tags.
"""

from __future__ import annotations

import struct

PRODUCE = 0
FLEXIBLE = 9
# From here on a topic has an id instead of a name; librdkafka does not go so far.
TOPIC_IDS = 13
NOT_ENOUGH_REPLICAS = 19
NO_TAGS = b"\0"
# Base offset, log append time and log start offset of a partition that took nothing.
NOTHING_APPENDED = struct.pack(">qqq", -1, -1, -1)


class KafkaFrames:
    """Size, then api key, version and correlation id."""

    def size(self, data: bytes) -> int | None:
        return 4 + int.from_bytes(data[:4], "big") if len(data) >= 4 else None

    def is_request(self, frame: bytes) -> bool:
        return int.from_bytes(frame[4:6], "big") == PRODUCE

    def answers(self, frame: bytes, request: bytes) -> bool:
        return frame[4:8] == request[8:12]


def refusal(request: bytes, error: int = NOT_ENOUGH_REPLICAS) -> bytes:
    """The answer that refuses everything in a produce request with `error`."""
    version = int.from_bytes(request[6:8], "big")
    assert version < TOPIC_IDS, f"produce requests of version {version} are not known here"
    flexible = version >= FLEXIBLE
    reading = _Reading(request, flexible)
    topics = [_refused_topic(reading, error) for _ in range(reading.count())]
    body = _count(len(topics), flexible) + b"".join(topics) + struct.pack(">i", 0)  # not throttled
    if flexible:
        body = NO_TAGS + body + NO_TAGS
    answer = request[8:12] + body
    return struct.pack(">i", len(answer)) + answer


def _refused_topic(reading: _Reading, error: int) -> bytes:
    flexible = reading.flexible
    name = reading.text()
    partitions = []
    for _ in range(reading.count()):
        index = reading.take(4)
        reading.skip_records()
        end = _count(0, flexible) + (b"\0" + NO_TAGS if flexible else b"\xff\xff")  # no message
        partitions.append(index + struct.pack(">h", error) + NOTHING_APPENDED + end)
    reading.skip_tags()
    size = bytes(_unsigned(len(name) + 1)) if flexible else struct.pack(">h", len(name))
    tags = NO_TAGS if flexible else b""
    return size + name + _count(len(partitions), flexible) + b"".join(partitions) + tags


def _count(number: int, flexible: bool) -> bytes:
    return _unsigned(number + 1) if flexible else struct.pack(">i", number)


def _unsigned(number: int) -> bytes:
    parts = []
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*parts, number))


class _Reading:
    """A produce request from its topics on, read from front to back."""

    def __init__(self, request: bytes, flexible: bool) -> None:
        self.flexible = flexible
        self._data, self._at = request, 12
        client = struct.unpack(">h", self.take(2))[0]  # the client id is never of the compact form
        self.take(max(client, 0))
        self.skip_tags()
        self.text()  # transactional id
        self.take(2 + 4)  # acks, time-out

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def count(self) -> int:
        return self._varint() - 1 if self.flexible else int(struct.unpack(">i", self.take(4))[0])

    def text(self) -> bytes:
        size = self._varint() - 1 if self.flexible else int(struct.unpack(">h", self.take(2))[0])
        return self.take(max(size, 0))

    def skip_records(self) -> None:
        self.take(max(self.count(), 0))
        self.skip_tags()

    def skip_tags(self) -> None:
        if self.flexible:
            for _ in range(self._varint()):
                self._varint()
                self.take(self._varint())

    def _varint(self) -> int:
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
