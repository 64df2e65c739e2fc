"""The tables of `make bench`: all sides by load, bursts in pairs, the idle minute, single events."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from tests.benchmarks.measure import Burst, Load, burst, idle, latency
from tests.benchmarks.sides import Command, by_hand, by_hand_shared, node_package, ours

LABELS: Mapping[Command, str] = {ours: "ours", by_hand: "by hand"}
LOADS = ((1, 1000), (1, 100), (5, 1000), (5, 500), (5, 100))  # destinations, events of a batch
ROWS: Sequence[tuple[str, str, Callable[[Burst], float]]] = (
    ("wall, stream asked to last event", "s", lambda run: run.wall),
    ("CPU in that time", "s", lambda run: run.cpu),
    ("CPU of the whole process", "s", lambda run: run.cpu_whole),
    ("peak resident memory", "MB", lambda run: run.peak),
    ("process start to first delivery", "s", lambda run: run.first),
    ("requests", "", lambda run: run.requests),
)

FIGURES = ROWS[0][2], ROWS[1][2]  # wall and CPU


def side_by_side(arguments: argparse.Namespace) -> None:
    """Every side under every load, each in turn, so that a slow minute of the machine falls on all."""
    sides: dict[str, Command] = {LABELS[arguments.command]: arguments.command}
    if (node := node_package(arguments.node_package)) is not None:
        sides["Node package"] = node
    sides |= {"by hand": by_hand, "by hand, shared": by_hand_shared}
    print(f"\n{arguments.events} events, median of {arguments.runs}: wall seconds (CPU of the whole process)")
    print(f"  {'':22}" + "".join(f"{f'{count} x {size}':>14}" for count, size in LOADS))
    columns = []
    for count, size in LOADS:
        load = Load(arguments.events, size, destinations=count)
        runs: dict[str, list[Burst]] = {name: [] for name in sides}
        for number in range(arguments.runs):
            for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
                runs[name].append(burst(sides[name], load))
        columns.append(runs)
    for name in sides:
        cells = [_cell(column[name]) for column in columns]
        print(f"  {name:22}" + "".join(f"{cell:>14}" for cell in cells), flush=True)
    mine = [column[LABELS[arguments.command]] for column in columns]
    beyond = [f"({statistics.median(run.cpu for run in runs):.1f})" for runs in mine]
    print(f"  {'  CPU beyond its start':22}" + "".join(f"{cell:>14}" for cell in beyond), flush=True)


def _cell(runs: Sequence[Burst]) -> str:
    wall, cpu = (statistics.median(figure(run) for run in runs) for figure in (FIGURES[0], ROWS[2][2]))
    return f"{wall:.2f} ({cpu:.1f})"


def one_destination(arguments: argparse.Namespace) -> None:
    """One HEC: events in large chunks and one a chunk, and what compression costs."""
    plain = pairs(arguments, Load(arguments.events, 1000))
    pairs(arguments, Load(arguments.events, 1000, chunk_bytes=0))
    if arguments.command is ours:
        gzip_cost(arguments, Load(arguments.events, 1000), plain)


def five_destinations(arguments: argparse.Namespace) -> None:
    """Five HECs, each of which gets every event: five lanes against five queues with a thread each."""
    plain = pairs(arguments, Load(arguments.events, 1000, destinations=5))
    if arguments.command is ours:
        gzip_cost(arguments, Load(arguments.events, 1000, destinations=5), plain)


def pairs(arguments: argparse.Namespace, load: Load) -> float:
    """Run and print one table; gives the median wall time of the subject."""
    subject: Command = arguments.command
    runs: list[tuple[Burst, Burst]] = []
    for number in range(arguments.runs):
        sides = (subject, by_hand) if number % 2 == 0 else (by_hand, subject)
        done = [burst(side, load) for side in sides]
        runs.append((done[0], done[1]) if number % 2 == 0 else (done[1], done[0]))
    print(f"\n{what(load)}")
    title = f"median of {arguments.runs}"
    print(f"  {title:34} {LABELS[subject]:>10} {'by hand':>10} {'ratio':>7}   each pair")
    for name, unit, figure in ROWS:
        mine, theirs = (statistics.median(figure(run[side]) for run in runs) for side in (0, 1))
        each = " ".join(f"{figure(first) / figure(second):.2f}" for first, second in runs)
        print(
            f"  {name:34} {mine:8.2f} {unit:2}{theirs:8.2f} {unit:2}{mine / theirs:7.2f}   {each}", flush=True
        )
    return statistics.median(run[0].wall for run in runs)


def what(load: Load) -> str:
    """A load in one line."""
    number = f"{load.destinations} destination{'s' if load.destinations > 1 else ''}"
    chunks = f"{load.chunk_bytes // 1024} KiB" if load.chunk_bytes else "one event"
    return f"{number}, {load.max_events} a batch, {load.events} events, HTTP chunks of {chunks}"


def gzip_cost(arguments: argparse.Namespace, load: Load, plain: float) -> None:
    """Ours with compressed requests, against ours without."""
    runs = [burst(ours, replace(load, compression="gzip")) for _ in range(arguments.runs)]
    wall, cpu = (statistics.median(figure(run) for run in runs) for figure in FIGURES)
    print(f"\nThe same with --http_compression=gzip, {load.max_events} a batch:")
    print(f"  wall {wall:.2f} s ({wall / plain:.2f} times without), CPU in that time {cpu:.2f} s", flush=True)


def transports(arguments: argparse.Namespace) -> None:
    """The same events over a WebSocket, against server-sent events: one a chunk, as the service itself
    writes, and in large chunks, as something in between may make of them."""
    if arguments.command is not ours:
        return
    load = Load(arguments.events, 1000)
    ways = {
        "SSE, one event a chunk": replace(load, chunk_bytes=0),
        "SSE, chunks of 64 KiB": load,
        "WebSocket": replace(load, transport="websocket"),
    }
    runs: dict[str, list[Burst]] = {name: [] for name in ways}
    for number in range(arguments.runs):
        for name in sorted(ways, reverse=bool(number % 2)):
            runs[name].append(burst(ours, ways[name]))
    print(f"\nTransports: 1 destination, 1000 a batch, {arguments.events} events, median of {arguments.runs}")
    print(f"  {'':24} events/s   CPU in that time   WebSocket takes so many times its wall, CPU")
    wall, cpu = ({name: statistics.median(map(of, each)) for name, each in runs.items()} for of in FIGURES)
    for name in ways:
        ratios = f"{wall['WebSocket'] / wall[name]:.2f}, {cpu['WebSocket'] / cpu[name]:.2f}"
        print(f"  {name:24} {arguments.events / wall[name]:8,.0f} {cpu[name]:16.2f} s   {ratios}", flush=True)


def idle_minute(arguments: argparse.Namespace) -> None:
    """What it costs to wait for events."""
    subject: Command = arguments.command
    sides = {
        f"{LABELS[subject]}, five destinations": (subject, 5),
        f"{LABELS[subject]}, one": (subject, 1),
        "by hand, five": (by_hand, 5),
    }
    print(f"\nIdle for {arguments.idle:.0f} s, connected, share of one core")
    for name, share in idle(sides, arguments.idle).items():
        print(f"  {name:24} {share:7.2%}", flush=True)


def single_events(arguments: argparse.Namespace) -> None:
    """How long an event that comes alone takes to its request."""
    print(f"\nOne event to its request, max_age 0.2 s, {arguments.singles} events 50 ms apart on average")
    subject: Command = arguments.command
    for name, side in ((LABELS[subject], subject), (LABELS[by_hand], by_hand)):
        delays = latency(side, arguments.singles)
        middle, high = percentile(delays, 0.5), percentile(delays, 0.99)
        print(f"  {name:8} p50 {middle:.3f} s   p99 {high:.3f} s   max {delays[-1]:.3f} s", flush=True)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of them are; the nearest one that occurred."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
