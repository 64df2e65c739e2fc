"""The practice feed: a server that streams like the Grantex service, its habits and faults included."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from pipelines.local.practice.events import generate
from pipelines.local.practice.feed_frames import Prepared, chunk, prepare, render
from pipelines.local.practice.feed_listener import Listener
from pipelines.local.practice.feed_pace import at_rate
from pipelines.local.practice.feed_requests import Answer, Request, read_request, types_of
from pipelines.local.practice.feed_stream import HEADERS, Finish, Piece, Stream
from pipelines.local.practice.slots import Slots
from transforms.clock import Clock, SystemClock

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


if __name__ == "__main__":
    from pipelines.local.practice.feed_command import main

    main()
