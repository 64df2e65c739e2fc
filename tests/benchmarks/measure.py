"""The measurements: a burst, an idle minute, single events; each runs one side as a whole child process."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass

from tests.benchmarks.processes import Side, running, server, stats
from tests.benchmarks.sides import Command, Task, ours

POLL = 0.05  # seconds; on two cores the observer must not be felt
GIVE_UP = 180.0  # seconds


class BenchmarkError(Exception):
    """A side ended, or did not deliver everything; the message has its output."""


@dataclass
class Burst:
    """One run over a full feed. Seconds and MB."""

    wall: float  # from the stream's request read by the feed to the last event counted
    cpu: float  # within that time
    cpu_whole: float  # of the whole process, start and imports included
    peak: float  # resident
    first: float  # from the start of the process to the first event counted
    requests: int


def burst(command: Command, events: int, max_events: int, chunk_bytes: int, compression: str) -> Burst:
    """Send `events` as fast as the side reads and wait for the last of them."""
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", f"--events={events}", f"--chunk_bytes={chunk_bytes}") as (feed,),
        server("counting_server") as (hec,),
        running(command(Task(feed, hec, state, max_events=max_events, compression=compression))) as side,
    ):
        samples: list[tuple[float, float]] = []
        figures = await_events(side, hec, events, samples)
        samples.append((time.monotonic(), side.cpu()))
        peak = side.memory("VmHWM")
        asked = stats(feed)["asked"]
        ended = stop(side, command)
        if figures["events"] > events or stats(hec)["events"] != events:
            raise BenchmarkError(f"{stats(hec)['events']} events were delivered, {events} were sent")
    return Burst(
        wall=figures["last"] - asked,
        cpu=cpu_at(samples, figures["last"]) - cpu_at(samples, asked),
        cpu_whole=ended,
        peak=peak,
        first=figures["first"] - side.started,
        requests=int(figures["requests"]),
    )


def await_events(
    side: Side, hec: int, events: int, samples: list[tuple[float, float]], poll: float = POLL
) -> dict[str, float]:
    """Wait until `events` are counted; `samples` gets (time, CPU seconds) at every look."""
    deadline = time.monotonic() + GIVE_UP
    while (figures := stats(hec))["events"] < events:
        if not side.running:
            raise BenchmarkError(side.failure("It ended by itself"))
        if time.monotonic() > deadline:
            raise BenchmarkError(side.failure(f"{figures['events']} of {events} events after {GIVE_UP} s"))
        samples.append((time.monotonic(), side.cpu()))
        time.sleep(poll)
    return figures


def cpu_at(samples: list[tuple[float, float]], moment: float) -> float:
    """CPU seconds used at `moment`, between the two samples around it."""
    before = max((sample for sample in samples if sample[0] <= moment), default=samples[0])
    after = min((sample for sample in samples if sample[0] > moment), default=samples[-1])
    if after[0] <= before[0]:
        return before[1]
    share = (moment - before[0]) / (after[0] - before[0])
    return before[1] + share * (after[1] - before[1])


def stop(side: Side, command: Command) -> float:
    """End the side and give its CPU seconds; ours must drain and exit 0."""
    ended = side.stop()
    if command is ours and ended.code != 0:
        raise BenchmarkError(side.failure(f"Stopped by SIGTERM it exited {ended.code} instead of 0"))
    return ended.cpu


def idle(command: Command, seconds: float) -> float:
    """Share of one core, connected, after a few events, with nothing happening for `seconds`."""
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", "--events=10", "--spacing=0.01") as (feed,),
        server("counting_server") as (hec,),
        running(command(Task(feed, hec, state, max_events=500))) as side,
    ):
        await_events(side, hec, 10, [])
        time.sleep(3)
        before, since = side.cpu(), time.monotonic()
        time.sleep(seconds)
        share = (side.cpu() - before) / (time.monotonic() - since)
        stop(side, command)
    return share


def latency(command: Command, events: int) -> list[float]:
    """Seconds from an event's leaving the feed to its request read by the destination, sorted.

    Single events at random moments, 50 ms apart on average, `max_age` 0.2.
    """
    pace = ("--spacing=0.05", "--random", "--delay=2", "--record")
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", f"--events={events}", *pace) as (feed,),
        server("counting_server", "--record") as (hec,),
        running(command(Task(feed, hec, state, max_events=500))) as side,
    ):
        await_events(side, hec, events, [], poll=0.5)
        left, arrived = stats(feed)["left"], stats(hec)["arrived"]
        stop(side, command)
    return sorted(arrived[event_id] - moment for event_id, moment in left.items())
