"""What became of one message that was handed to librdkafka."""

from __future__ import annotations

from confluent_kafka import KafkaError, Message


class Report:
    """The delivery report of one message; it belongs to this message alone, whenever it comes."""

    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = False
        self.error: KafkaError | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.error = error
        self.done = True

    def give_up(self) -> None:
        """The producer is gone, so what is still open stays unknown."""
        if not self.done:
            self.error, self.done = KafkaError(KafkaError._PURGE_INFLIGHT), True
