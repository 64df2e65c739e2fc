"""The practice feed: a server that streams like the Grantex service, its habits and faults included."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipelines.practice.events import generate
from pipelines.practice.feed_requests import Answer, Request, Slots, read_request, types_of
from pipelines.practice.feed_stream import (
    HEADERS,
    Finish,
    Piece,
    Prepared,
    Stream,
    at_rate,
    chunk,
    prepare,
    render,
)
from transforms.clock import Clock, SystemClock


class Listener:
    """Calls `serve(socket)` in a thread of its own for each client; the socket is closed afterwards.

    port: 0 takes a free one, which `open` then keeps.
    """

    def __init__(self, serve: Callable[[socket.socket], None], port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self._serve = serve
        self._tls = tls
        self._listening: socket.socket | None = None
        self._clients: set[socket.socket] = set()

    def open(self) -> None:
        """Listen, on the same port as before."""
        listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = listening.getsockname()[1]
        self._listening = listening
        threading.Thread(target=self._accept, args=(listening,), name="practice-feed", daemon=True).start()

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open ones go on."""
        listening, self._listening = self._listening, None
        if listening is not None:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            listening.close()

    def close(self) -> None:
        """Stop listening and end every client."""
        self.refuse()
        for client in list(self._clients):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(client, socket.SHUT_RDWR)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self._run, args=(client,), name="practice-client", daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        try:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            self._clients.add(client)
            self._serve(client)
        except OSError:
            pass  # the client is gone
        finally:
            self._clients.discard(client)
            client.close()


PRACTICE_KEY = "practice-key"
PRACTICE_DEVELOPER = "dev_practice"


@dataclass
class PracticeFeed:
    """A context manager; `url` is known once it is entered. What is published with no stream open is gone.

    api_keys: key -> developer id; change it at any time (a live stream goes on, as on the service).
    keepalive: seconds between keepalives; None is silence. May be changed at any time.
    withhold_headers: send headers only with the first event or keepalive, as the service does.
    hanging: answer nothing to new requests while it is True (the service with its Redis down).
    events_per_chunk: how many events share an HTTP chunk; the service has 1.
    keep_ids: remember in each stream's `sent_ids` what it sent; off for a feed that runs for days.
    clock: the clock of the slot counter's time to live.
    """

    api_keys: dict[str, str] = field(default_factory=lambda: {PRACTICE_KEY: PRACTICE_DEVELOPER})
    keepalive: float | None = 30.0
    withhold_headers: bool = True
    hanging: bool = False
    events_per_chunk: int = 1
    keep_ids: bool = True
    port: int = 0
    tls: ssl.SSLContext | None = None
    clock: Clock = field(default_factory=SystemClock)

    def __post_init__(self) -> None:
        self.slots = Slots(self.clock)
        self.requests: list[Request] = []  # every request, in order, with the status it was answered
        self.streams: list[Stream] = []  # every stream ever opened, in order
        self._answers: list[Answer] = []
        self._changed = threading.Condition()
        self._listener = Listener(self._serve, self.port, self.tls)
        self._stop = threading.Event()
        self._ended = False

    def __enter__(self) -> PracticeFeed:
        self.accept()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def api_key(self) -> str:
        """A key that is accepted now."""
        return next(iter(self.api_keys))

    @property
    def open_streams(self) -> list[Stream]:
        return [stream for stream in self.streams if stream.is_open]

    # What is published

    def publish(self, event: bytes) -> int:
        """Send one event (or any line of bytes) to the open streams that want it; returns to how many."""
        return self.publish_many([event])

    def publish_many(self, events: Iterable[bytes]) -> int:
        return self.publish_prepared(prepare(events, self.events_per_chunk))

    def publish_prepared(self, prepared: Prepared) -> int:
        streams = self.open_streams
        for stream in streams:
            if stream.types is None:
                stream.put(Piece(prepared.data, self._ids(prepared.heads)))
                continue
            wanted = [i for i, (_, kind) in enumerate(prepared.heads) if stream.wants(kind)]
            if wanted:
                data = render([prepared.events[i] for i in wanted], self.events_per_chunk)
                stream.put(Piece(data, self._ids([prepared.heads[i] for i in wanted])))
        return len(streams)

    def publish_raw(self, data: bytes, drip: float = 0.0, chunk_bytes: int = 65536) -> None:
        """Send bytes that are no tidy frames: a capture, garbage, half a frame. `drip` as in Piece."""
        pieces = range(0, len(data), chunk_bytes)
        body = b"".join(chunk(data[start : start + chunk_bytes]) for start in pieces)
        for stream in self.open_streams:
            stream.put(Piece(body, drip=drip))

    @contextlib.contextmanager
    def publishing(self, rate: float) -> Iterator[None]:
        """Publish `rate` made-up events a second from a thread of its own inside the context."""
        stop = threading.Event()
        arguments = (self.publish_prepared, rate, generate(), stop, None, self.events_per_chunk)
        thread = threading.Thread(target=at_rate, args=arguments, name="practice-publisher", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    # Faults on command

    def finish_streams(self, how: Finish) -> None:
        """End all open streams, after what was published before."""
        for stream in self.open_streams:
            stream.put(how)

    def cut_inside(self, event: bytes) -> None:
        """Send the first half of the event's frame, then cut."""
        frame = b"data: " + event + b"\n\n"
        self.publish_raw(frame[: len(frame) // 2])
        self.finish_streams(Finish.CUT)

    def crash(self) -> None:
        """Cut all streams and leave their slots counted, as a killed server does."""
        for stream in self.open_streams:
            stream.leaks_slot = True
        self.finish_streams(Finish.CUT)

    def answer(self, answer: Answer) -> None:
        """Answer coming stream requests with `answer`, `answer.times` times."""
        with self._changed:
            self._answers.append(answer)

    def end_input(self) -> None:
        """No more events: open streams end properly and new ones get 204."""
        self._ended = True
        self.finish_streams(Finish.END)

    def refuse(self) -> None:
        """Stop listening: new connections are refused, open streams go on."""
        self._listener.refuse()

    def accept(self) -> None:
        """Listen again, on the same port as before."""
        self._listener.open()
        self.port = self._listener.port

    def close(self) -> None:
        self._stop.set()
        self._listener.close()

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

    def _serve(self, sock: socket.socket) -> None:
        while (request := read_request(sock)) is not None:
            while self.hanging and not self._stop.wait(0.02):
                pass
            answer = self._route(request, sock)
            if answer is None:
                return
            self._note(request, answer.status)
            sock.sendall(answer.rendered(request.closes))
            if request.closes:
                return

    def _route(self, request: Request, sock: socket.socket) -> Answer | None:
        """The answer, or None when the request became a stream, which is over by then."""
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        developer = self.api_keys.get(key) if scheme.lower() == "bearer" else None
        if request.path == "/v1/events/stream":
            forced = self._forced()
            if forced is not None:
                return forced
        if developer is None:
            return Answer(401, "UNAUTHORIZED", "Invalid API key")
        if request.path == "/v1/me" and request.method == "GET":
            return Answer.json(200, {"developerId": developer, "name": "Practice"})
        if request.path != "/v1/events/stream":
            return Answer(404, "NOT_FOUND", "Route not found")
        return self._stream(request, developer, sock)

    def _forced(self) -> Answer | None:
        with self._changed:
            if self._ended:
                return Answer(204)
            if not self._answers:
                return None
            answer = self._answers[0]
            answer.times -= 1
            if answer.times <= 0:
                self._answers.pop(0)
            return answer

    def _stream(self, request: Request, developer: str, sock: socket.socket) -> Answer | None:
        try:
            types = types_of(request.query)
        except ValueError:
            return Answer(500, "INTERNAL_ERROR", "types.split is not a function")
        if not self.slots.acquire(developer):
            return Answer(429, "TOO_MANY_CONNECTIONS", "Too many concurrent connections")
        stream = Stream(developer, types, request.headers, sock)
        if not self.withhold_headers and request.method == "GET":
            stream.has_sent_headers = True
            sock.sendall(HEADERS)
        if request.method == "HEAD":  # hangs, and takes a slot
            stream.types = frozenset({"none of them"})
        self.streams.append(stream)
        self._note(request, 200)
        try:
            stream.run(
                lambda: None if request.method == "HEAD" else self.keepalive,
                lambda: self.slots.touch(developer),
            )
        finally:
            if not stream.leaks_slot:
                self.slots.release(developer)
            self._notify()
        return None

    def _ids(self, heads: list[tuple[str, str]]) -> list[str]:
        return [event_id for event_id, _ in heads] if self.keep_ids else []

    def _note(self, request: Request, status: int) -> None:
        request.status = status
        self.requests.append(request)
        self._notify()

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options(argv)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
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
