"""How events travel: what one attempt to read asks for, when its answer is a stream, and its frames."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Protocol

import httpx

from transforms.clock import Clock
from transforms.feed.reconnect import Ending, EndingKind, refusal
from transforms.feed.request import WEBSOCKET, FeedSettings, Headers, stream_headers, stream_url
from transforms.feed.sse import FrameReader
from transforms.parse import Frame


class Transport(Protocol):
    """One attempt's. A connection, and whoever runs several of them, need not know which it is.

    types: of events to keep, where the service does not do so itself; empty keeps all.
    is_live: whether all that is published from now on comes by it: the service has subscribed.
    """

    types: Set[str]
    is_live: bool

    @property
    def last_event_id(self) -> bytes:
        """For the next attempt."""

    @property
    def retry(self) -> float | None:
        """Seconds that the service wants clients to wait before they come back, None when it did not say."""

    def request(self, key: str) -> tuple[str, Headers]:
        """Address and headers of the GET that opens the stream."""

    def refusal(self, response: httpx.Response, now: float) -> Ending | None:
        """Why `response` is no stream, or None when it is one; `now` in epoch seconds. Raises httpx.HTTPError
        when an error's body cannot be read."""

    def frames(self, response: httpx.Response) -> Iterator[tuple[list[Frame], int]]:
        """The frames that each read has completed, in order, and how many bytes it had: 0 when only time has
        passed. Raises httpx.HTTPError."""

    def let_go(self) -> None:
        """Nothing was read for long: the service is not to keep ever more for us. For the reading thread."""

    @property
    def ending(self) -> Ending:
        """How it ended, once there are no more frames."""


def open_transport(settings: FeedSettings, clock: Clock, last_event_id: bytes) -> Transport:
    """The next attempt's. last_event_id: that of the stream before."""
    if settings.transport == WEBSOCKET:
        from transforms.feed.websocket import WebSocket  # 20 ms that nobody else needs

        return WebSocket(settings, clock)
    return EventStream(settings, last_event_id)


class EventStream:
    """Server-sent events over HTTP; the service filters them."""

    types: Set[str] = frozenset()
    ending = Ending(EndingKind.END)

    def __init__(self, settings: FeedSettings, last_event_id: bytes) -> None:
        self.is_live = False
        self._settings = settings
        self._frames = FrameReader(last_event_id=last_event_id)

    @property
    def last_event_id(self) -> bytes:
        return self._frames.last_event_id

    @property
    def retry(self) -> float | None:
        return self._frames.retry

    def request(self, key: str) -> tuple[str, Headers]:
        return stream_url(self._settings), stream_headers(key, self.last_event_id)

    def refusal(self, response: httpx.Response, now: float) -> Ending | None:
        return refusal(response, now)

    def frames(self, response: httpx.Response) -> Iterator[tuple[list[Frame], int]]:
        """It is live with its first byte: `: connected`, a keepalive or an event. Headers may be sent before
        the service has subscribed, or by something in between."""
        for block in response.iter_raw():
            self.is_live = True
            yield self._frames.feed(block), len(block)

    def let_go(self) -> None:
        """TCP holds the service up, and what it may keep for a stream is bounded (32 MB)."""
