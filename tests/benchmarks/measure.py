"""The measurements: a burst, an idle minute, single events; each runs one side as a whole child process."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
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
    first: float  # from the start of the process until every destination had its first event
    requests: int


@dataclass(frozen=True)
class Load:
    """What a burst consists of: so many events to each of so many destinations."""

    events: int
    max_events: int
    destinations: int = 1
    chunk_bytes: int = 65_536  # of the feed's HTTP chunks; 0: one event a chunk
    event_bytes: int = 0  # about; 0: as they usually are
    compression: str = "none"
    transport: str = "sse"


def task(load: Load, feed: int, hecs: Sequence[int], state: str) -> Task:
    """What a side is asked to do for a load."""
    return Task(feed, hecs, state, load.max_events, compression=load.compression, transport=load.transport)


def burst(command: Command, load: Load) -> Burst:
    """Send the events as fast as the side reads and wait until every destination has the last of them."""
    feed_arguments = [
        f"--events={load.events}",
        f"--chunk_bytes={load.chunk_bytes}",
        f"--transport={load.transport}",
        f"--event_bytes={load.event_bytes}",
    ]
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", *feed_arguments) as (feed,),
        server("counting_server", f"--destinations={load.destinations}") as hecs,
        running(command(task(load, feed, hecs, state))) as side,
    ):
        samples: list[tuple[float, float]] = []
        figures = await_events(side, hecs[0], load.events, samples)
        samples.append((time.monotonic(), side.cpu()))
        peak = side.memory("VmHWM")
        asked = stats(feed)["asked"]
        ended = stop(side, command)
        counted = stats(hecs[0])
        if not counted["events"] == counted["most"] == load.events:
            raise BenchmarkError(f"{counted['events']} to {counted['most']} of {load.events} events arrived")
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
    """Wait until `events` are counted everywhere; `samples` gets (time, CPU seconds) at every look."""
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


def idle(sides: Mapping[str, tuple[Command, int]], seconds: float) -> dict[str, float]:
    """Share of one core that each side takes, connected, after a few events, with nothing happening for
    `seconds`. sides: name -> command and number of destinations; all idle at the same time, so that a busy
    minute of the machine falls on each of them."""
    with contextlib.ExitStack() as stack:
        standing = {name: idling(stack, command, count) for name, (command, count) in sides.items()}
        time.sleep(3)
        before, since = {name: side.cpu() for name, side in standing.items()}, time.monotonic()
        time.sleep(seconds)
        taken = time.monotonic() - since
        shares = {name: (side.cpu() - before[name]) / taken for name, side in standing.items()}
        for name, side in standing.items():
            stop(side, sides[name][0])
    return shares


def idling(stack: contextlib.ExitStack, command: Command, destinations: int) -> Side:
    """A side that has delivered a few events to each destination and has nothing more to do."""
    state = stack.enter_context(tempfile.TemporaryDirectory())
    (feed,) = stack.enter_context(server("feed_server", "--events=10", "--spacing=0.01"))
    hecs = stack.enter_context(server("counting_server", f"--destinations={destinations}"))
    side = stack.enter_context(running(command(Task(feed, hecs, state, max_events=500))))
    await_events(side, hecs[0], 10, [])
    return side


def latency(command: Command, events: int, max_age: float = 0.2) -> list[float]:
    """Seconds from an event's leaving the feed to its request read by the destination, sorted.

    Single events at random moments, 50 ms apart on average.
    """
    pace = ("--spacing=0.05", "--random", "--delay=2", "--record")
    with (
        tempfile.TemporaryDirectory() as state,
        server("feed_server", f"--events={events}", *pace) as (feed,),
        server("counting_server", "--record") as hecs,
        running(command(Task(feed, hecs, state, max_events=500, max_age=max_age))) as side,
    ):
        await_events(side, hecs[0], events, [], poll=0.5)
        left, arrived = stats(feed)["left"], stats(hecs[0])["arrived"]
        stop(side, command)
    return sorted(arrived[event_id] - moment for event_id, moment in left.items())
