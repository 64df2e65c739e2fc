"""`make webhook-flood`: what a thousand bad webhooks a second do to the feed; ARGS="--rate=2000".

Two parts, each without them and with them: how fast a burst of events is received, and how late steady events
reach their destination.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import quantiles

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Prepared, at_rate, prepare
from pipelines.practice.webhooks import signed
from tests.integration.job import ROOT, Job, World, free_port, world

SECRET = "webhook-9d2c-for-nobodys-eyes"
KINDS = ("forged", "stale", "replayed", "oversized", "malformed", "slow")
THREADS = 32


def request(headers: dict[str, str], body: bytes) -> bytes:
    """A POST, byte for byte."""
    head = {"host": "localhost", "content-length": str(len(body)), **headers}
    return (
        b"POST / HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in head.items()).encode() + b"\r\n" + body
    )


class Flood:
    """Bad requests of all kinds, so many a second, from threads of its own. sent: how many so far."""

    def __init__(self, port: int, rate: float) -> None:
        self.sent = dict.fromkeys(KINDS, 0)
        self._port, self._rate = port, rate
        self._stop = threading.Event()
        event, now = next(generate()), time.time()
        right = signed(event, SECRET, now)
        self._requests = {
            "forged": request(signed(event, "no secret of ours", now), event),
            "stale": request(signed(event, SECRET, now - 400), event),
            "replayed": request(right, event),
            "oversized": request({"content-length": str(2**21)}, b"x"),
            "malformed": request({"content-length": "five"}, b""),
            "slow": request(right, event)[:-1],
        }

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _run(self, number: int) -> None:
        dice, begun, done = random.Random(number), time.monotonic(), 0
        slow: list[socket.socket] = []
        while not self._stop.is_set():
            if done > (time.monotonic() - begun) * self._rate / THREADS:
                self._stop.wait(0.002)
                continue
            kind = dice.choice(KINDS)
            with contextlib.suppress(OSError):
                client = socket.create_connection(("127.0.0.1", self._port), timeout=5)
                client.sendall(self._requests[kind])
                if kind == "slow":
                    slow.append(client)
                else:
                    client.recv(1000)
                    client.close()
                self.sent[kind] += 1
            if len(slow) > 5:
                slow.pop(0).close()
            done += 1
        for client in slow:
            client.close()


@contextlib.contextmanager
def flooding(port: int, rate: float) -> Iterator[None]:
    """A flood from a process of its own."""
    command = [sys.executable, "-m", "tests.integration.webhook_flood", f"--flood={port}", f"--rate={rate}"]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        said, _ = process.communicate("stop\n", timeout=30)
        print(f"  sent: {said.strip()}")


@dataclass(frozen=True)
class Seconds:
    """burst: from publishing to having received all. late: of each steady event until it was delivered."""

    burst: float
    late: Sequence[float]

    def __str__(self) -> str:
        cuts = quantiles(self.late, n=100)
        steady = f"{cuts[49]:.2f} s (median), {cuts[98]:.2f} s (p99)"
        return f"burst received in {self.burst:.2f} s; steady events delivered after {steady}"


def measure(around: World, job: Job, burst: int, rate: float, seconds: float) -> Seconds:
    """One round."""
    prepared = prepare(islice(generate(), burst))
    before = job.metric("grantex_events_received_total")
    since = time.monotonic()
    around.feed.publish_prepared(prepared)
    job.wait_until(lambda: job.metric("grantex_events_received_total") >= before + burst, "all received", 120)
    took = time.monotonic() - since
    job.wait_until_settled("splunk", timeout=120)
    around.splunk.ids.clear()
    sent: dict[str, float] = {}
    came: dict[str, float] = {}
    stop = threading.Event()

    def publish(some: Prepared) -> None:
        sent.update(dict.fromkeys((event_id for event_id, _ in some.heads), time.monotonic()))
        around.feed.publish_prepared(some)

    def look() -> None:
        seen = 0
        while not stop.wait(0.01):
            ids = around.splunk.ids
            now = time.monotonic()
            came.update(dict.fromkeys(ids[seen:], now))
            seen = len(ids)

    looking = threading.Thread(target=look)
    looking.start()
    at_rate(publish, rate, generate(), threading.Event(), int(rate * seconds))
    job.wait_until(lambda: len(set(came)) >= len(sent), "all delivered", 60)
    stop.set()
    looking.join()
    return Seconds(took, [came[event_id] - sent[event_id] for event_id in sent])


def taking(around: World) -> tuple[int, dict[str, object]]:
    """The port that webhooks go to, and the flags that make the job take them."""
    port = free_port()
    around.environment = {**around.environment, "WEBHOOK_SECRET": SECRET}
    return port, {"webhook_port": port, "webhook_secret": "env:WEBHOOK_SECRET"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0, help="bad requests a second")
    parser.add_argument("--seconds", type=float, default=10.0, help="of steady events")
    parser.add_argument("--events", type=float, default=500.0, help="steady events a second")
    parser.add_argument("--burst", type=int, default=200_000)
    parser.add_argument("--flood", type=int, help="only flood this port, until a line is read")
    given = parser.parse_args()
    if given.flood:
        flood = Flood(given.flood, given.rate)
        with flood.running():
            sys.stdin.readline()
        print(json.dumps(flood.sent))
        return
    with tempfile.TemporaryDirectory() as place, world(Path(place)) as around:
        port, flags = taking(around)
        with around.live_job(**flags, files_dir=None, files_max_age=None) as job:
            for name, rate in (("calm", 0.0), ("flooded", given.rate)) * 2:
                with flooding(port, rate) if rate else contextlib.nullcontext():
                    print(f"{name}: {measure(around, job, given.burst, given.events, given.seconds)}")
            counted = [
                line for line in job.get("/metrics")[1].splitlines() if "grantex_webhooks_total{" in line
            ]
            print("\n".join(line for line in counted if not line.endswith(" 0.0")))
            told = [line for line in job.log.splitlines() if "webhooks" in line]
            print(f"lines in the log: {len(told)}")


if __name__ == "__main__":
    main()
