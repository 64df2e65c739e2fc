"""The practice feed as a process of its own: prints one JSON line with its url, then serves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from collections.abc import Sequence

from pipelines.local.practice.events import generate
from pipelines.local.practice.feed import PRACTICE_DEVELOPER, PRACTICE_KEY, PracticeFeed
from pipelines.local.practice.feed_frames import Prepared
from pipelines.local.practice.feed_pace import at_rate


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
    parser = argparse.ArgumentParser(prog="pipelines.local.practice.feed", description=__doc__)
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
