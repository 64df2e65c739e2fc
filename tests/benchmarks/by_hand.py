"""The yardstick: the same job by hand, in an afternoon. No journal, no retries, no window, no dead letters.

One queue and one thread a destination, httpx and httpx-sse as their manuals show them, the event's JSON
spliced into HEC's envelope and not parsed at all. What it leaves out, it does not pay for: it is meant to be
hard to keep up with.
"""

import contextlib
import os
import queue
import sys
import threading
import time

import httpx
import httpx_sse

Queue = queue.SimpleQueue[bytes]


def deliver(url: str, token: str, max_events: int, max_age: float, events: Queue) -> None:
    """Post what arrives in `events` to one HEC, `max_events` a request or after `max_age` seconds."""
    with httpx.Client(headers={"Authorization": f"Splunk {token}"}) as client:
        while True:
            batch = [events.get()]
            deadline = time.monotonic() + max_age
            with contextlib.suppress(queue.Empty):
                while len(batch) < max_events:
                    batch.append(events.get(timeout=max(0.0, deadline - time.monotonic())))
            client.post(f"{url}/services/collector/event", content=b"\n".join(batch)).raise_for_status()


def main(feed_url: str, max_events: str, max_age: str, *hec_urls: str) -> None:
    """Read the feed until it ends and give every event to every destination."""
    queues: list[Queue] = []
    for url in hec_urls:
        queues.append(queue.SimpleQueue())
        arguments = (url, os.environ["BENCH_HEC_TOKEN"], int(max_events), float(max_age), queues[-1])
        threading.Thread(target=deliver, args=arguments, daemon=True).start()
    headers = {"Authorization": f"Bearer {os.environ['BENCH_FEED_KEY']}"}
    with (
        httpx.Client(timeout=75) as client,
        httpx_sse.connect_sse(client, "GET", f"{feed_url}/v1/events/stream", headers=headers) as source,
    ):
        for sse in source.iter_sse():
            spliced = (
                f'{{"event":{sse.data},"source":"grantex","sourcetype":"_json","index":"main"}}'.encode()
            )
            for events in queues:
                events.put(spliced)


if __name__ == "__main__":
    main(*sys.argv[1:])
