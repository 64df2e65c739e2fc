"""The second yardstick: as by_hand.py, but each event is spliced once, into one list for all destinations.

So it is what Python can do here with httpx, whatever the number of destinations: no journal, no retries, and
no memory bound either, as nothing of the list is ever let go.
"""

import os
import sys
import threading

import httpx
import httpx_sse


class Shared:
    """The lines of all events."""

    def __init__(self, max_events: int) -> None:
        self.lines: list[bytes] = []
        self.more = threading.Condition()
        self._max_events = max_events

    def add(self, line: bytes) -> None:
        """One event more; whoever waits for a full batch is woken when there may be one."""
        self.lines.append(line)
        if len(self.lines) % self._max_events == 0:
            with self.more:
                self.more.notify_all()

    def wait(self, start: int, max_age: float) -> list[bytes]:
        """The lines from `start` on: a batch of them, or fewer after `max_age` seconds."""
        full = start + self._max_events
        with self.more:
            self.more.wait_for(lambda: len(self.lines) >= full, max_age)
        return self.lines[start:full]


def deliver(url: str, token: str, shared: Shared, max_age: float) -> None:
    """Post every line to one HEC."""
    position = 0
    with httpx.Client(headers={"Authorization": f"Splunk {token}"}) as client:
        while True:
            batch = shared.wait(position, max_age)
            if batch:
                client.post(f"{url}/services/collector/event", content=b"\n".join(batch)).raise_for_status()
                position += len(batch)


def main(feed_url: str, max_events: str, max_age: str, *hec_urls: str) -> None:
    """Read the feed until it ends and give every event to every destination."""
    shared = Shared(int(max_events))
    for url in hec_urls:
        arguments = (url, os.environ["BENCH_HEC_TOKEN"], shared, float(max_age))
        threading.Thread(target=deliver, args=arguments, daemon=True).start()
    headers = {"Authorization": f"Bearer {os.environ['BENCH_FEED_KEY']}"}
    with (
        httpx.Client(timeout=75) as client,
        httpx_sse.connect_sse(client, "GET", f"{feed_url}/v1/events/stream", headers=headers) as source,
    ):
        for sse in source.iter_sse():
            shared.add(
                f'{{"event":{sse.data},"source":"grantex","sourcetype":"_json","index":"main"}}'.encode()
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
