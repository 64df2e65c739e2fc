"""The producer behind Kafka's writer: hands messages over and waits for each one's delivery report."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from transforms.clock import Clock, SystemClock
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.secret import SecretError, redact
from transforms.way_out import USUAL, WayOut
from transforms.write.advice import KAFKA
from transforms.write.contract import Outcome, Writer
from transforms.write.failure import as_outcome, failed
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka import reply as kafka_outcome
from transforms.write.kafka.config import Value
from transforms.write.kafka.reply import (
    AUTHENTICATION,
    REFUSED,
    Names,
    Report,
    Verdict,
    for_their_time,
    place_of,
)
from transforms.write.kafka.tokens import TokenError, Tokens

log = logging.getLogger("grantex.kafka")
log.addFilter(lambda record: bool(_redacted(record)))
# What one attempt may take, on clusters of workers too; what is not acknowledged by then is waited for by
# the next attempt.
PATIENCE = 5.0
POLL = 0.1  # seconds; `close` is seen at least this often
LOOK_SECONDS = 5.0  # of the preflight
NOT_SHOWN = "shows no such topic"  # said by `preflight`, known again by `check`
# librdkafka's words for an `oauth_cb` that has raised.
TOKEN_MISSING = "Failed to acquire SASL OAUTHBEARER token"  # noqa: S105 - no token
LAST_POLL = 0.5  # seconds that a purged producer gets to say what became of its messages


class KafkaWriter(Writer):
    """One idempotent producer, for as long as its credentials last.

    librdkafka retries for ever, and a message that has been handed over is never handed over again while
    it may still be delivered: it is kept in `_waiting`, and when its event comes again only its report is
    waited for. So an outage of the brokers, however long, neither loses nor repeats an event.
    """

    def __init__(
        self,
        servers: str,
        topic: str,
        config: Mapping[str, Value],
        timestamp: Callable[[Event], int],
        clock: Clock | None = None,
        patience: float | None = None,
        way_out: WayOut = USUAL,
        tokens: Tokens | None = None,
    ) -> None:
        self._servers, self._topic, self._config, self._way_out = servers, topic, config, way_out
        self._timestamp = timestamp
        self._clock = clock or SystemClock()
        self._patience = PATIENCE if patience is None else patience
        self._names = Names(servers, topic, tokens)
        self._tokens, self._account = tokens, ""
        self._producer: Producer | None = None
        self._resolved: dict[str, Any] = {}
        self._waiting: dict[Event, Report] = {}
        self._trouble: KafkaError | None = None  # what librdkafka last said about connections
        self._renew = False  # the producer is fatally broken
        self._topic_missing = False
        self._closing = False

    def write(self, batch: Batch) -> Outcome | None:
        """Hand over what has not been, and wait for all reports, at most `patience` seconds."""
        try:
            producer = self._connected()
        except TokenError as error:
            events = range(len(batch.events))
            return failed(self._names.where, KAFKA[error.kind], events, error.said)
        except SecretError as error:
            return as_outcome(error, len(batch.events), self._names.where)
        except OSError as error:
            return self._unfit(batch, self._way_out.fault(error))
        except KafkaException as error:
            return self._unfit(batch, kafka_config.in_words(error))
        until = self._clock.monotonic() + self._patience
        verdict = Verdict(self._names)
        everything = range(len(batch.events))
        reports = self._sent(producer, batch.events, everything, self._timestamp, verdict, until)
        if refused := for_their_time(reports):
            reports = {index: one for index, one in reports.items() if index not in refused}
            reports |= self._retimed(producer, batch.events, refused, verdict, until)
        batch.place = place_of(self._topic, reports.values())
        return self._judge(batch.events, reports, verdict)

    def preflight(self) -> Iterator[Finding]:
        """Whether a broker lets us in and has the topic; nothing is written, and no topic is made."""
        what = f"topic {self._names.topic}"
        try:
            topics = self._topics(self._connected(), self._clock.monotonic() + LOOK_SECONDS)
        except TokenError as error:
            found = KAFKA[error.kind]
            yield Finding(what, False if found.do else None, found.told(self._names.where, error.said))
        except (SecretError, OSError) as error:
            yield Finding(what, False, f"{self._names.where}: {redact(str(error))}.")
        except KafkaException as error:
            said = self._trouble or error.args[0]
            known = isinstance(said, KafkaError)
            cause, blocked = (
                kafka_outcome.advice(self._names, said) if known else (kafka_config.in_words(error), True)
            )
            yield Finding(what, False if blocked else None, cause)
        else:
            there = self._topic in topics
            cause = (
                f"{self._names.where} {NOT_SHOWN}. Create it, or correct --kafka_topic, unless its "
                "brokers make topics by themselves."
            )
            yield Finding(what, True) if there else Finding(what, None, cause)

    def _topics(self, producer: Producer, until: float) -> Collection[str]:
        """All that this user may see: asked for one by name, brokers that make topics by themselves would.

        Raises KafkaException when nobody has answered by `until`, or lets us in.
        """
        while not self._locked_out() and self._clock.monotonic() < until:
            with contextlib.suppress(KafkaException):
                return list(producer.list_topics(timeout=POLL * 5).topics)
            self._poll(producer, 0)  # why is told by a callback
        return list(producer.list_topics(timeout=POLL).topics)

    def close(self) -> None:
        """Forget what is not delivered: its events come again, to another writer. Never blocks for long."""
        self._closing = True
        if self._tokens is not None:
            self._tokens.close()
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
            self._last_reports(producer)

    def _unfit(self, batch: Batch, why: str) -> Outcome:
        return failed(self._names.where, KAFKA["configuration"], range(len(batch.events)), why)

    def _connected(self) -> Producer:
        """The producer; a new one after a fatal error, or when credentials that were refused have changed.

        Raises SecretError, OSError for authorities, and KafkaException for settings that do not fit together.
        """
        producer = self._producer
        if producer is not None:
            self._poll(producer, 0)
        trouble, self._trouble = self._trouble, None
        asked = trouble is not None and trouble.code() in (*AUTHENTICATION, KafkaError._SSL)
        asked |= self._tokens is not None and self._tokens.missing is not None
        if producer is None or asked:
            resolved = self._settings(asked)
            self._renew |= resolved != self._resolved
            self._resolved = resolved
        if producer is not None and self._renew:
            self._discard(producer)
            producer = None
        self._renew = False
        if producer is None:
            settings = {**self._resolved, "error_cb": self._heard, "logger": log}
            producer = self._producer = Producer(settings)
        elif self._topic_missing:
            self._look_for_topic(producer)
        self._topic_missing = False
        return producer

    def _settings(self, refused: bool) -> dict[str, Any]:
        """librdkafka's settings; credentials that were refused are read again."""
        tokens = self._tokens
        if tokens is not None and refused:
            tokens.forget()
        resolved = kafka_config.resolved(self._servers, self._config, self._way_out, tokens)
        if tokens is not None:  # another account's must be shown now; librdkafka keeps what it has till late
            self._renew |= tokens.account != self._account
            self._account = tokens.account
        return resolved

    def _discard(self, producer: Producer) -> None:
        """Take everything back from a producer, so that it cannot deliver behind our backs."""
        producer.purge(in_queue=True, in_flight=True, blocking=True)
        self._last_reports(producer)
        self._producer = None
        for report in self._waiting.values():
            report.give_up()

    def _last_reports(self, producer: Producer) -> None:
        until = self._clock.monotonic() + LAST_POLL
        while len(producer) and (left := until - self._clock.monotonic()) > 0:
            self._poll(producer, left)

    def _poll(self, producer: Producer, seconds: float) -> None:
        """Let librdkafka call back. A fatal error is raised here, too, and means no more than in `_heard`."""
        try:
            producer.poll(seconds)
        except KafkaException as error:
            self._heard(error.args[0])

    def _look_for_topic(self, producer: Producer) -> None:
        """A producer that once found no such topic looks again only every five minutes by itself."""
        try:
            producer.list_topics(self._topic, timeout=POLL * 10)
        except KafkaException as error:
            log.debug("%s: %s", self._names.where, error)

    def _retimed(
        self,
        producer: Producer,
        events: Sequence[Event],
        refused: Sequence[int],
        verdict: Verdict,
        until: float,
    ) -> dict[int, Report]:
        """Send events again that were refused, some of them for their time: created_at is anyone's text, and
        no reason to refuse an event. Only what is beyond the topic's limits is stamped with "now".

        A broker refuses a whole record batch for one such time. Those nearest to now are sent in ever smaller
        parts until one is refused alone: it is beyond the limit, and so are all that are farther away.
        """
        now = self._clock.now() * 1000
        times = {index: self._timestamp(events[index]) for index in refused}
        past = sorted((index for index in refused if times[index] <= now), key=lambda index: times[index])
        ahead = sorted(set(refused) - set(past), key=lambda index: -times[index])
        reports: dict[int, Report] = {}
        for left in (past, ahead):  # the nearest to now come last
            size = (len(left) + 1) // 2
            while left:
                part = left[-size:]
                sent = self._sent(producer, events, part, self._timestamp, verdict, until)
                bad = for_their_time(sent)
                reports |= {index: one for index, one in sent.items() if index not in bad}
                left = [index for index in left if index not in part or index in bad]
                if bad and size > 1 and self._clock.monotonic() < until:
                    size //= 2
                elif bad:
                    reports |= self._sent(producer, events, left, _now, verdict, until)
                    break
        return reports

    def _sent(
        self,
        producer: Producer,
        events: Sequence[Event],
        indexes: Sequence[int],
        time: Callable[[Event], int],
        verdict: Verdict,
        until: float,
    ) -> dict[int, Report]:
        sent = self._hand_over(producer, events, indexes, time, verdict, until)
        self._wait(producer, list(sent.values()), until)
        return sent

    def _hand_over(
        self,
        producer: Producer,
        events: Sequence[Event],
        indexes: Sequence[int],
        time: Callable[[Event], int],
        verdict: Verdict,
        until: float,
    ) -> dict[int, Report]:
        """The report of each of these events that librdkafka has, by index."""
        reports: dict[int, Report] = {}
        for place, index in enumerate(indexes):
            event = events[index]
            report = self._waiting.pop(event, None) if self._waiting else None
            try:
                # One that was refused meanwhile is sent anew; one that may have arrived is counted first.
                if report is None or (report.error is not None and report.error.code() in REFUSED):
                    report = self._produce(producer, event, time(event), until)
            except BufferError:
                verdict.put_off(indexes[place:], f"{self._names.where}: librdkafka's queue is full")
                break
            except KafkaException as error:
                self._not_taken(index, error.args[0], verdict)
                continue
            reports[index] = report
        return reports

    def _produce(self, producer: Producer, event: Event, timestamp: int, until: float) -> Report:
        """Raises BufferError when there is no room until `until`, KafkaException when it is refused."""
        report = Report()
        headers: list[tuple[str, str | bytes | None]] = [("event-type", event.type), ("event-id", event.id)]

        def produce() -> None:
            producer.produce(
                self._topic, event.raw, event.id, on_delivery=report, timestamp=timestamp, headers=headers
            )

        try:
            produce()
        except BufferError:
            while not (self._closing or self._renew) and self._clock.monotonic() < until:
                self._poll(producer, POLL)
                with contextlib.suppress(BufferError):
                    produce()
                    return report
            raise
        return report

    def _not_taken(self, index: int, error: KafkaError, verdict: Verdict) -> None:
        """librdkafka refuses a message before it is sent anywhere."""
        self._renew |= error.fatal() or error.code() == KafkaError._FATAL
        if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
            verdict.too_large_here(index, self._resolved.get("message.max.bytes", "1000000"))
        else:
            self._topic_missing |= error.code() in kafka_outcome.UNKNOWN_TOPIC
            verdict.put_off([index], *kafka_outcome.advice(self._names, error))

    def _wait(self, producer: Producer, reports: list[Report], until: float) -> None:
        """Serve reports until all of these have come, the time is over, or nothing can come."""
        while True:
            while reports and reports[-1].done:
                reports.pop()
            left = until - self._clock.monotonic()
            if not reports or left <= 0 or self._closing or self._renew or self._locked_out():
                return
            self._poll(producer, min(POLL, left))

    def _judge(
        self, events: Sequence[Event], reports: Mapping[int, Report], verdict: Verdict
    ) -> Outcome | None:
        unanswered = []
        for index, report in reports.items():
            if not report.done:
                unanswered.append(index)
                self._waiting[events[index]] = report
            elif report.error is not None:
                self._renew |= report.error.fatal()
                self._topic_missing |= report.error.code() in kafka_outcome.UNKNOWN_TOPIC
                verdict.failed(index, report.error)
        if self._trouble is not None:
            verdict.put_off(unanswered, *kafka_outcome.advice(self._names, self._trouble))
        else:
            verdict.put_off(unanswered, kafka_outcome.no_answer(self._names, self._patience))
        return verdict.outcome()

    def _locked_out(self) -> bool:
        return self._trouble is not None and kafka_outcome.advice(self._names, self._trouble)[1]

    def _heard(self, error: KafkaError) -> None:
        """Called by librdkafka, from `poll`: connections, sign-ins, and the end of a producer."""
        self._renew |= error.fatal() or error.code() == KafkaError._FATAL
        if self._tokens is not None and self._tokens.still_good and TOKEN_MISSING in error.str():
            return  # the next one could not be had yet; with this one all goes on
        # "All brokers down" follows the reason, which says more.
        if self._trouble is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error
        log.debug("%s: %s", self._names.where, redact(error.str()))


def _now(_: Event) -> int:
    return 0


def _redacted(record: logging.LogRecord) -> bool:
    """librdkafka logs parts of its configuration at the debug levels that a user may ask for."""
    record.msg, record.args = redact(record.getMessage()), ()
    return True
