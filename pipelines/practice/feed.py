"""The practice feed: a server that streams like the Grantex service, its habits, slots and faults included.

As a program of its own: `python -m pipelines.practice.feed --port P --rate R`; `--help` lists the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from urllib.parse import parse_qs

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import (
    CONNECTED,
    HEADERS,
    Close,
    Finish,
    Piece,
    Prepared,
    Stream,
    at_rate,
    prepare,
)
from pipelines.practice.feed_websocket import CLOSING_SECONDS, SOCKET, SocketStream, upgraded
from pipelines.practice.http_server import Answer, HttpServer, Request, TakeOver, told_to_stop
from pipelines.practice.ledger import Ledger, error
from pipelines.practice.webhooks import WebhookSender
from transforms.clock import Clock, SystemClock

PRACTICE_KEY = "practice-key"
PRACTICE_DEVELOPER = "dev_practice"
STREAM = "/v1/events/stream"
LIMIT = 5
TTL = 300.0  # seconds


class Slots:
    """A counter per developer that lives 300 s from its last touch: every stream's keepalive and every
    refused attempt touches it, so slots of a crashed server linger for as long as anybody asks."""

    def __init__(self, clock: Clock, limit: int = LIMIT, ttl: float = TTL) -> None:
        self._clock = clock
        self._limit = limit
        self._ttl = ttl
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, float]] = {}

    def acquire(self, developer: str) -> bool:
        """Take a slot; False when all are taken."""
        with self._lock:
            taken = self._taken(developer)
            granted = taken < self._limit
            self._counts[developer] = (taken + granted, self._clock.monotonic() + self._ttl)
            return granted

    def touch(self, developer: str) -> None:
        """A live stream's keepalive: everything counted lives on."""
        with self._lock:
            self._counts[developer] = (self._taken(developer), self._clock.monotonic() + self._ttl)

    def release(self, developer: str) -> None:
        """A stream ended while the server was there to notice."""
        with self._lock:
            taken = self._taken(developer)
            self._counts[developer] = (max(0, taken - 1), self._clock.monotonic() + self._ttl)

    def taken(self, developer: str) -> int:
        """Slots counted now, dead ones included."""
        with self._lock:
            return self._taken(developer)

    def _taken(self, developer: str) -> int:
        count, until = self._counts.get(developer, (0, 0.0))
        return count if self._clock.monotonic() < until else 0


class PracticeFeed(HttpServer):
    """A context manager; `url` is known once it is entered. What is published with no stream open is gone.

    api_keys: key -> developer id; change it at any time (a live stream goes on, as on the service).
    keepalive: seconds between keepalives; None is silence. May be changed at any time.
    withhold_headers: send headers only with the first event or keepalive, as the service does; its newer
        generation sends them at once, and a comment that says that it has subscribed.
    events_per_chunk: how many events share an HTTP chunk; the service has 1.
    keep_ids: remember the requests, and in each stream's `sent_ids` what it sent; off for a feed that runs
        for days.
    answers_pings: a WebSocket's, as the service does; False is a connection that is dead without a word.
    subscribe_seconds: how long after its 101 a WebSocket begins to be sent what is published.
    clock: the clock of the slot counters' time to live; SSE streams and WebSockets are counted apart.
    ledger: webhooks and their deliveries; `ledger.drop(n)` has the next n events reach no stream.
    """

    def __init__(
        self,
        api_keys: dict[str, str] | None = None,
        *,
        keepalive: float | None = 30.0,
        withhold_headers: bool = True,
        events_per_chunk: int = 1,
        keep_ids: bool = True,
        subscribe_seconds: float = 0.003,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(port, tls=tls, keep_requests=keep_ids)
        self.api_keys = {PRACTICE_KEY: PRACTICE_DEVELOPER} if api_keys is None else api_keys
        self.keepalive = keepalive
        self.withhold_headers = withhold_headers
        self.events_per_chunk = events_per_chunk
        self.keep_ids = keep_ids
        self.subscribe_seconds = subscribe_seconds
        self.answers_pings = True
        self.plan = "free"
        self.slots = Slots(clock or SystemClock())
        self.socket_slots = Slots(clock or SystemClock())
        self.ledger = ledger or Ledger(clock=clock)
        self.webhook_sender: WebhookSender | None = None  # what is published goes to it, too
        self.streams: list[Stream] = []  # every stream ever opened, in order
        self._ended = False

    @property
    def api_key(self) -> str:
        """A key that is accepted now."""
        return next(iter(self.api_keys))

    @property
    def open_streams(self) -> list[Stream]:
        return [stream for stream in self.streams if stream.is_open]

    @property
    def sent_ids(self) -> set[str]:
        """Ids of all events whose bytes went into the socket of a stream."""
        return {event_id for stream in self.streams for event_id in stream.sent_ids}

    # What is published

    def publish(self, event: bytes) -> int:
        """Send one event (or any line of bytes) to the open streams that want it; returns to how many."""
        return self.publish_many([event])

    def publish_many(self, events: Iterable[bytes]) -> int:
        return self.publish_prepared(prepare(events, self.events_per_chunk))

    def publish_prepared(self, prepared: Prepared) -> int:
        if self.webhook_sender is not None:
            self.webhook_sender.publish_prepared(prepared)
        prepared, streams = self.ledger.published(prepared), self.open_streams
        for stream in streams:
            heads, events = prepared.heads, prepared.events
            if stream.types is not None:
                wanted = [i for i, (_, kind) in enumerate(heads) if stream.wants(kind)]
                heads, events = [heads[i] for i in wanted], [events[i] for i in wanted]
            if events:
                data = stream.rendered(events, prepared, self.events_per_chunk)
                stream.put(Piece(data, self._ids(heads)))
        return len(streams)

    def publish_raw(self, data: bytes, drip: float = 0.0, chunk_bytes: int = 65536) -> None:
        """Send bytes that are no tidy frames: a capture, garbage, half a frame. `drip` as in Piece."""
        pieces = range(0, len(data), chunk_bytes)
        for stream in self.open_streams:
            body = b"".join(stream.raw(data[start : start + chunk_bytes]) for start in pieces)
            stream.put(Piece(body, drip=drip))

    @contextlib.contextmanager
    def publishing(self, rate: float, events: Iterator[bytes] | None = None) -> Iterator[None]:
        """Publish `rate` events a second, made-up ones by default, from a thread of its own inside the
        context."""
        stop = threading.Event()
        source = generate() if events is None else events
        arguments = (self.publish_prepared, rate, source, stop, None, self.events_per_chunk)
        thread = threading.Thread(target=at_rate, args=arguments, name="practice-publisher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # Faults on command

    def finish_streams(self, how: Finish | Close) -> None:
        """End all open streams, after what was published before."""
        for stream in self.open_streams:
            stream.put(how)

    def cut_inside(self, event: bytes) -> None:
        """Send the first half of the event's frame, then cut."""
        for stream in self.open_streams:
            frame = stream.framed(event)
            stream.put(Piece(stream.raw(frame[: len(frame) // 2])))
        self.finish_streams(Finish.CUT)

    def crash(self) -> None:
        """Cut all streams and leave their slots counted, as a killed server does."""
        for stream in self.open_streams:
            stream.leaks_slot = True
        self.finish_streams(Finish.CUT)

    def answer_streams(
        self,
        status: int,
        code: str = "",
        message: str = "",
        headers: dict[str, str] | None = None,
        times: int = 1,
        path: str = STREAM,
    ) -> None:
        """Answer the next requests for a stream with this error; `path` is `SOCKET` for a WebSocket."""
        self.answer(status, error(status, code, message).body, headers, times, path=path)

    def end_input(self) -> None:
        """No more events: open streams end properly and new ones get 204."""
        self._ended = True
        self.finish_streams(Finish.END)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As at SIGTERM: WebSockets are closed, without a code; SSE streams go on until the process ends."""
        sockets = [stream for stream in self.open_streams if isinstance(stream, SocketStream)]
        for each in sockets:
            each.put(Finish.END)
        with contextlib.suppress(TimeoutError):
            self.wait_for(lambda: not any(each.is_open for each in sockets), CLOSING_SECONDS)
        super().__exit__(kind, error, trace)

    # What tests wait for

    def wait_for(self, condition: Callable[[], bool], timeout: float = 10.0) -> None:
        """Wait until `condition` holds. Raises TimeoutError."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError("the practice feed did not see what was waited for")

    def wait_for_streams(self, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until `count` streams are open. Raises TimeoutError."""
        self.wait_for(lambda: len(self.open_streams) >= count, timeout)

    # Serving

    def judge(self, request: Request) -> Answer | TakeOver:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        developer = self.api_keys.get(key) if scheme.lower() == "bearer" else None
        if request.path in (STREAM, SOCKET) and self._ended:
            return Answer(204, b"")
        if developer is None:
            return error(401, "UNAUTHORIZED", "Invalid API key")
        if request.path == "/v1/me" and request.method == "GET":
            me = {"developerId": developer, "name": "Practice", "plan": self.plan, "mode": "live"}
            return self.ledger.limited(Answer(200, json.dumps(me).encode()), developer)
        if found := self.ledger.answer(request, developer):
            return self.ledger.limited(found, developer)
        if request.path == SOCKET:
            accepted = upgraded(request)
            if isinstance(accepted, Answer):
                return accepted
            return lambda connection: self._socket(request, developer, accepted, connection)
        if request.path != STREAM:
            return error(404, "NOT_FOUND", "Route not found")
        try:
            types = types_of(request.query)
        except ValueError:
            return error(500, "INTERNAL_ERROR", "types.split is not a function")
        return lambda connection: self._stream(request, developer, types, connection)

    def _stream(
        self, request: Request, developer: str, types: frozenset[str] | None, connection: socket.socket
    ) -> Answer | None:
        """Stream until the client leaves or the stream is finished, unless all slots are taken."""
        if not self.slots.acquire(developer):
            return error(429, "TOO_MANY_CONNECTIONS", "Too many concurrent connections")
        stream = Stream(developer, types, request.headers, connection)
        if not self.withhold_headers and request.method == "GET":
            stream.has_sent_headers = True
            connection.sendall(HEADERS + CONNECTED)
        if request.method == "HEAD":  # hangs, and takes a slot
            stream.types = frozenset({"none of them"})
        self._run(stream, self.slots, request, 200)
        return None

    def _socket(self, request: Request, developer: str, accepted: bytes, connection: socket.socket) -> None:
        """The same over a WebSocket, which is accepted even when all slots are taken."""
        connection.sendall(accepted)
        stream = SocketStream(
            developer, request.headers, connection, self._changed, lambda: self.answers_pings
        )
        if not self.socket_slots.acquire(developer):
            self._note(request, 101)
            stream.finish(Close(1013, "Too many connections"))
            stream.close()
            return
        try:
            stream.subscribe(self.subscribe_seconds)
        except OSError:
            self.socket_slots.release(developer)
            raise
        self._run(stream, self.socket_slots, request, 101)

    def _run(self, stream: Stream, slots: Slots, request: Request, status: int) -> None:
        self.streams.append(stream)
        self._note(request, status)
        try:
            stream.run(
                lambda: None if request.method == "HEAD" else self.keepalive,
                lambda: slots.touch(stream.developer),
            )
        finally:
            if not stream.leaks_slot:
                slots.release(stream.developer)
            with self._changed:
                self._changed.notify_all()

    def _ids(self, heads: list[tuple[str, str]]) -> list[str]:
        return [event_id for event_id, _ in heads] if self.keep_ids else []


def types_of(query: str) -> frozenset[str] | None:
    """The service's reading of `types`: split at commas, compared exactly and untrimmed; empty is no
    filter. Raises ValueError for a repeated parameter, to which the service answers 500."""
    values = parse_qs(query, keep_blank_values=True).get("types", [""])
    if len(values) > 1:
        raise ValueError("repeated types")
    return frozenset(values[0].split(",")) if values[0] else None


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options(argv)
    stop = told_to_stop()
    feed = PracticeFeed(
        api_keys={options.api_key: PRACTICE_DEVELOPER},
        keepalive=options.keepalive,
        withhold_headers=not options.headers_at_once,
        events_per_chunk=options.events_per_chunk,
        port=options.port,
    )
    with feed:
        print(json.dumps({"url": feed.url, "pid": os.getpid()}), flush=True)
        publisher = threading.Thread(target=_publish, args=(feed, options, stop), daemon=True)
        publisher.start()
        stop.wait()


def _publish(feed: PracticeFeed, options: argparse.Namespace, stop: threading.Event) -> None:
    """Wait for the first stream if asked to, publish, then end the input if asked to."""
    while options.wait_for_stream and not feed.open_streams and not stop.wait(0.01):
        pass
    if options.rate <= 0:
        return
    sent = open(options.sent, "a", encoding="ascii") if options.sent else None  # noqa: SIM115

    def publish(prepared: Prepared) -> None:
        feed.publish_prepared(prepared)
        if sent is not None:
            sent.write("".join(f"{event_id}\n" for event_id, _ in prepared.heads))
            sent.flush()

    events = generate(options.seed)
    at_rate(publish, options.rate, events, stop, options.count, options.events_per_chunk)
    if options.end_input:
        feed.end_input()


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pipelines.practice.feed", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--rate", type=float, default=0.0, help="events a second; 0 publishes nothing")
    parser.add_argument("--count", type=int, help="stop publishing after so many events")
    parser.add_argument("--seed", type=int, help="the same ids again")
    parser.add_argument("--api-key", default=PRACTICE_KEY)
    parser.add_argument("--keepalive", type=float, default=30.0, help="seconds")
    parser.add_argument("--events-per-chunk", type=int, default=1)
    parser.add_argument("--headers-at-once", action="store_true", help="do not withhold response headers")
    parser.add_argument("--wait-for-stream", action="store_true", help="publish once a stream is open")
    parser.add_argument("--end-input", action="store_true", help="after --count, end streams and answer 204")
    parser.add_argument("--sent", help="file to append each published id to")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
