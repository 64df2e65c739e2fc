"""What librdkafka's reports and errors mean for a batch, and what a person can do about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from confluent_kafka import KafkaError, Message

from transforms.secret import shown
from transforms.write.advice import KAFKA
from transforms.write.contract import Outcome
from transforms.write.kafka.tokens import Tokens

AUTHENTICATION = {
    KafkaError._AUTHENTICATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.ILLEGAL_SASL_STATE,
}
UNKNOWN_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}
DENIED = {KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.CLUSTER_AUTHORIZATION_FAILED}
# Nobody may have seen the message: it was taken out of the queue before it was sent.
NOT_SENT = {KafkaError._PURGE_QUEUE}
# Never cured by trying again, and said of one record by name.
INVALID = {KafkaError.INVALID_RECORD, KafkaError.POLICY_VIOLATION}
TOO_LARGE = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE}
# Perhaps refused for a timestamp: Kafka says INVALID_TIMESTAMP of a whole record batch, or INVALID_RECORD of
# each record, and the last one of their neighbours.
BAD_TIME = {
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.INVALID_RECORD,
    KafkaError._INVALID_DIFFERENT_RECORD,
}
# The broker has refused the message: it is not in the log.
REFUSED = AUTHENTICATION | UNKNOWN_TOPIC | DENIED | INVALID | TOO_LARGE | BAD_TIME | NOT_SENT

MOST_RUNS = 10  # of offsets without a gap, in a partition, that a receipt names


class Report:
    """The delivery report of one message; it belongs to this message alone, whenever it comes."""

    __slots__ = ("done", "error", "offset", "partition")

    def __init__(self) -> None:
        self.done = False
        self.error: KafkaError | None = None
        self.partition: int | None = None
        self.offset: int | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.error = error
        if error is None:
            self.partition, self.offset = message.partition(), message.offset()
        self.done = True

    def give_up(self) -> None:
        """The producer is gone, so what is still open stays unknown."""
        if not self.done:
            self.error, self.done = KafkaError(KafkaError._PURGE_INFLIGHT), True


def place_of(topic: str, reports: Iterable[Report]) -> str:
    """Where delivered messages lie: partitions, and ranges of offsets in each; "" when none is delivered."""
    offsets: dict[int, list[int]] = {}
    for report in reports:
        if report.partition is not None and report.offset is not None:
            offsets.setdefault(report.partition, []).append(report.offset)
    parts = []
    for partition, each in sorted(offsets.items()):
        runs: list[list[int]] = []
        for offset in sorted(each):
            if runs and offset - runs[-1][1] == 1:
                runs[-1][1] = offset
            else:
                runs.append([offset, offset])
        ends = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:MOST_RUNS]]
        more = [f"… {runs[-1][1]}"] if len(runs) > MOST_RUNS else []
        parts.append(f"{topic}[{partition}]@{','.join([*ends, *more])}")
    return " ".join(parts)


def for_their_time(reports: Mapping[int, Report]) -> list[int]:
    """The indexes of those that were refused, perhaps for a time: their own or a neighbour's."""
    return [index for index, one in reports.items() if one.error and one.error.code() in BAD_TIME]


class Names:
    """What a person calls the broker and the topic, and the tokens that sign us in."""

    def __init__(self, servers: str, topic: str, tokens: Tokens | None = None) -> None:
        self.tokens = tokens
        self.where = f"Kafka at {servers}"
        self.topic = topic


def advice(names: Names, error: KafkaError) -> tuple[str, bool]:
    """The cause in plain words, and whether it blocks everything until somebody does something."""
    said = shown(error.str())
    if names.tokens is not None and error.code() in AUTHENTICATION:
        return _of_token(names, names.tokens, said)
    found = KAFKA[_kind(error.code(), said)]
    return found.told(names.where, said, topic=names.topic), bool(found.do)


def _of_token(names: Names, tokens: Tokens, said: str) -> tuple[str, bool]:
    """Why we are not let in: there is no token, which librdkafka cannot tell, or it was refused."""
    missing = tokens.missing
    found, said = (KAFKA[missing.kind], missing.said) if missing else (KAFKA["token_refused"], said)
    return found.told(names.where, said), bool(found.do)


def _kind(code: int, said: str) -> str:
    if code in AUTHENTICATION:
        return "sign_in"
    if code == KafkaError._SSL:
        return "tls"
    if code in UNKNOWN_TOPIC:
        return "topic"
    if code in DENIED:
        return "denied"
    # A port that speaks another protocol looks like one that is down, but for librdkafka's guess.
    if code == KafkaError._ALL_BROKERS_DOWN:
        return "maybe_tls"
    if code in (KafkaError._TRANSPORT, KafkaError._RESOLVE):
        return "maybe_tls" if "SSL" in said else "unreachable"
    return "other"


def no_answer(names: Names, seconds: float) -> str:
    """The cause when nothing was said at all."""
    return KAFKA["no_report"].told(names.where, seconds=f"{seconds:.0f}")


class Verdict:
    """Collects what became of each event of a batch, and sums it up as one Outcome."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._rejected: dict[int, str] = {}
        self._later: list[int] = []
        self._cause = ""
        self._too_large = self._other = self._blocked = self._unknown = False

    def too_large_here(self, index: int, most: str) -> None:
        """librdkafka itself refuses the event alone, for its size."""
        self._rejected[index] = (
            f"too_large: more than message.max.bytes ({most}); raise it with "
            "--kafka_config=message.max.bytes=BYTES, and the topic's max.message.bytes"
        )

    def failed(self, index: int, error: KafkaError) -> None:
        """The event's delivery report carries `error`."""
        code = error.code()
        if code in INVALID:
            self._rejected[index] = f"invalid: {shown(error.str())}"
            return
        self._later.append(index)
        if code in TOO_LARGE:
            # All of a record batch get this error when one of them is too large: halving finds which.
            self._too_large = True
            self._say(
                f"{self._names.where}: topic {self._names.topic} refuses messages for their size", False
            )
            return
        self._other = True
        self._unknown |= code not in REFUSED
        self._say(*advice(self._names, error))

    def put_off(self, indexes: Iterable[int], cause: str, blocked: bool = False) -> None:
        """These have no report yet, or were never handed over: definitely nothing has been lost of them."""
        before = len(self._later)
        self._later += indexes
        if len(self._later) > before:
            self._other = True
            self._say(cause, blocked)

    def outcome(self) -> Outcome | None:
        if not self._rejected and not self._later:
            return None
        return Outcome(
            rejected=self._rejected,
            later=self._later,
            cause=self._cause,
            unknown=self._unknown,
            # Halved only when size is all that is wrong, else innocents would become dead letters.
            too_large=self._too_large and not self._other,
            blocked=self._blocked,
        )

    def _say(self, cause: str, blocked: bool) -> None:
        if not self._cause or (blocked and not self._blocked):
            self._cause = cause
        self._blocked |= blocked
