"""Splunk with indexer acknowledgement: a batch is delivered when an indexer says that it is indexed.

An acknowledgement takes seconds, so many batches have to be under way: as many writers wait, each with its
batch, and share a few channels. Whoever finds that a poll is due asks for everything in its channel.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import httpx

from transforms.clock import Clock
from transforms.event import Batch, Event
from transforms.secret import SecretError
from transforms.write.advice import SPLUNK
from transforms.write.contract import Outcome, Writer
from transforms.write.failure import as_outcome, failed
from transforms.write.over_http.connection import Reply
from transforms.write.splunk.channel import MOVED, Channel, Sent
from transforms.write.splunk.indexes import Indexes
from transforms.write.splunk.reply import UNKNOWN_CHANNEL, outcome_of, read_reply

# Each is a socket, and one request at a time: at 50 ms a round trip 80 requests a second.
CHANNELS = 4
TWICE = "is sent again and may then be there twice"


class Session:
    """The channels of a destination in this process, and what is under way in them by its batch's id.

    A batch that comes again is not sent again as long as its acknowledgement may still come: polls of
    others may have seen it meanwhile.
    """

    def __init__(self, open_channel: Callable[[], Channel]) -> None:
        self._open_channel = open_channel
        self._channels: list[Channel | None] = [None] * CHANNELS
        self._lock = threading.Lock()
        self._under_way: dict[str, Sent] = {}

    def channel(self, number: int) -> Channel:
        """The channel of the writer `number`. Raises OSError when it cannot be set up."""
        with self._lock:
            channel = self._channels[number % CHANNELS]
            if channel is None or channel.closed:
                channel = self._channels[number % CHANNELS] = self._open_channel()
            return channel

    def under_way(self, batch: Batch) -> Sent | None:
        """What an earlier attempt of `batch` sent and nobody has settled yet."""
        return self._under_way.get(batch.id)

    def remember(self, batch: Batch, sent: Sent, stale: float) -> None:
        """Keep what was sent for the batch; what was sent before `stale` belongs to one that never came
        again."""
        with self._lock:
            forgotten = [(key, one) for key, one in self._under_way.items() if one.at < stale]
            for key, _ in forgotten:
                del self._under_way[key]
            self._under_way[batch.id] = sent
        for _, one in forgotten:
            one.channel.give_up(one, "nobody asks for it any more")

    def forget(self, batch: Batch) -> None:
        with self._lock:
            self._under_way.pop(batch.id, None)

    def close(self) -> None:
        for channel in self._channels:
            if channel is not None:
                channel.close()


class Shared:
    """One session for all writers of a destination's settings, from the first opened to the last closed.

    A copy of it, by pickle or otherwise, begins with nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writers = 0
        self._session: Session | None = None

    def join(self, open_channel: Callable[[], Channel]) -> tuple[Session, int]:
        """The session, and the number of who joins it."""
        with self._lock:
            self._writers += 1
            if self._session is None:
                self._session = Session(open_channel)
            return self._session, self._writers

    def leave(self) -> None:
        """The last one closes the session."""
        with self._lock:
            self._writers -= 1
            session = None
            if not self._writers:
                session, self._session = self._session, None
        if session is not None:
            session.close()

    def __reduce__(self) -> tuple[type[Shared], tuple[()]]:
        return Shared, ()


class AcknowledgedWriter(Writer):
    """Posts a batch into a channel and waits for its acknowledgement.

    encode: the body of a request, as it is sent. wait: seconds that one attempt waits at most. timeout:
    seconds after which what is not acknowledged is sent again. where: the service as a person knows it.
    """

    def __init__(
        self,
        shared: Shared,
        open_channel: Callable[[], Channel],
        encode: Callable[[Sequence[Event]], bytes],
        clock: Clock,
        *,
        wait: float,
        timeout: float,
        where: str,
        indexes: Indexes,
    ) -> None:
        self._shared = shared
        self._encode, self._clock = encode, clock
        self._patience, self._timeout = wait, timeout
        self._where, self._indexes = where, indexes
        self._session, self._number = shared.join(open_channel)
        self._awaiting: Sent | None = None
        self._using: Channel | None = None  # while a request of ours is under way in it
        self._closed = False

    def write(self, batch: Batch) -> Outcome | None:
        """Send `batch` once, unless it was sent before and may still be acknowledged, and wait for that."""
        sent = self._session.under_way(batch)
        if sent is None:
            posted = self._post(batch)
            if not isinstance(posted, Sent):
                return posted
            sent = posted
            self._session.remember(batch, sent, self._clock.monotonic() - 2 * self._timeout)
        return self._wait(batch, sent)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        using, awaiting = self._using, self._awaiting  # the attempt may end just now
        if using is not None:
            using.close()
        if awaiting is not None:
            awaiting.bell.set()
        self._shared.leave()

    def _post(self, batch: Batch) -> Sent | Outcome | None:
        count = len(batch.events)
        body = self._encode(batch.events)
        channel = self._using = self._session.channel(self._number)
        try:
            reply, sent = channel.post(body)
        except (SecretError, httpx.TransportError) as error:
            outcome = as_outcome(error, count, self._where)
            # Before it has begun nothing but a question is sent.
            return replace(outcome, unknown=False) if outcome and not channel.begun else outcome
        finally:
            self._using = None
        return sent or self._refused(reply, batch.events, asked_first=not channel.begun)

    def _refused(self, reply: Reply, events: Sequence[Event], asked_first: bool) -> Outcome:
        count, index = len(events), partial(self._indexes.refused, events)
        if asked_first and reply.status == 404:
            return failed(self._where, SPLUNK["no_ack_path"], range(count))
        if read_reply(reply.status, reply.body).code == UNKNOWN_CHANNEL:
            cause = f"{self._where} took nothing: {MOVED}. Another channel is begun."
            return Outcome(later=range(count), cause=cause)
        status, headers, now = reply.status, reply.headers, self._clock.now()
        outcome = outcome_of(self._where, index, status, headers, reply.body, count, now)
        assert outcome is not None  # HEC did not take it
        if asked_first:
            return replace(outcome, unknown=False)
        return unacknowledged(outcome, count)

    def _wait(self, batch: Batch, sent: Sent) -> Outcome | None:
        clock, channel = self._clock, sent.channel
        self._awaiting = sent
        until = min(clock.monotonic() + self._patience, sent.at + self._timeout)
        while not (sent.acknowledged or sent.gone):
            now = clock.monotonic()
            if self._closed:
                break
            if now >= channel.poll_at:
                self._using = channel
                channel.poll()
                self._using = None
            elif now >= until:
                return self._not_yet(batch, sent, now)
            else:
                clock.wait(sent.bell, min(until, channel.poll_at) - now)
        self._awaiting = None
        self._session.forget(batch)
        if sent.acknowledged:
            where_to = ", ".join(self._indexes.of(batch.events))
            batch.place = f"index {where_to}, ack {sent.ack_id} in channel {sent.guid}"
            return None
        return self._gone(batch, sent.gone or "this program ended before the acknowledgement")

    def _not_yet(self, batch: Batch, sent: Sent, now: float) -> Outcome:
        """The attempt is over; the acknowledgement may still come, unless it is too late even for that."""
        count, age, channel = len(batch.events), now - sent.at, sent.channel
        self._awaiting = None
        what = f"{count} events taken and not acknowledged for {age:.0f} s"
        if channel.trouble:
            what += f" ({channel.trouble})"
        if age >= self._timeout:
            channel.give_up(sent, what)
            self._session.forget(batch)
            return self._gone(batch, what)
        cause = (
            f"{self._where}: {what}. They are kept, asked for again, and sent again after "
            f"{self._timeout:.0f} s: look at the queues and the replication of its indexers"
        )
        return Outcome(later=range(count), cause=cause)

    def _gone(self, batch: Batch, why: str) -> Outcome:
        cause = f"{self._where}: {why}. What is not acknowledged {TWICE}."
        return Outcome(later=range(len(batch.events)), cause=cause, unknown=True)


def unacknowledged(outcome: Outcome, count: int) -> Outcome:
    """An outcome in which nothing is delivered: what a refused request has left in the index has no ack id,
    so it is sent again."""
    later = [index for index in range(count) if index not in outcome.rejected]
    unknown = outcome.unknown or len(later) > len(set(outcome.later))
    return replace(outcome, later=later, unknown=unknown)
