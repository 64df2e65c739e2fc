"""`make torture`: everything that can go wrong, at random and at once, and then every id is accounted for.

Two processes that stand by for each other read two connections of both transports, webhooks and the ledger,
and deliver to six destinations. Both are killed, ended and stopped, the feed is cut, frozen and drops events
without a word, destinations are away, the disk is full. --seed gives the same deeds in the same order; when
each strikes a process is up to the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pytest

from pipelines.practice.feed import PRACTICE_DEVELOPER, STREAM
from pipelines.practice.feed_stream import Finish
from pipelines.practice.feed_websocket import SOCKET
from pipelines.practice.webhooks import WebhookSender
from tests.integration.crew import Crew, Life
from tests.integration.gap_test import Published
from tests.integration.job import World, free_port, world
from tests.integration.kill_test import paced
from tests.integration.reckoning import Reckoning, begin, prove_now, reckon
from tests.servers.feed_proxy import FeedProxy
from tests.servers.landing import Landing
from tests.servers.six import real_servers, six
from transforms.event_types import KNOWN

# How often each deed is done, against the others.
WEIGHTS = {
    "kill the active": 3,
    "kill the standby": 1,
    "end the active": 2,
    "end the standby": 1,
    "stop the active": 3,
    "stop the standby": 1,
    "cut a stream": 6,
    "reset a stream": 3,
    "freeze a stream": 5,
    "cut all streams": 1,
    "refuse streams": 2,
    "drop events": 4,
    "destination away": 6,
    "fill the disk": 1,
}
BOTH_UP = "wait until both are up"
PAUSE = (0.2, 4.0)  # seconds between two deeds
STOPPED = (0.2, 12.0)  # seconds of SIGSTOP; the watchdog ends those beyond its patience
AWAY = (1.0, 12.0)  # seconds of a destination
FULL = (0.5, 6.0)  # seconds of a full disk
DROPPED = (1, 20)  # events at once
WEBHOOKS_EVERY = 2.0  # seconds, in place of 30
SETTLED = 180.0
PROVEN = 300.0  # the service's ledger is asked a minute after an event, every 45 s
DISK = 512  # MB
LOOKED_AT = 10.0  # seconds for which a process may believe that a disk is full which is not any more


class Disk:
    """The state directory's own file system, which root may make as small as what is in it."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self.is_full = False
        self.full_at = 0.0  # epoch seconds

    @property
    def may_be_blamed(self) -> bool:
        """Whether a process may end by itself: it is full, or was a moment ago."""
        return self.is_full or time.time() < self.full_at

    @contextlib.contextmanager
    def mounted(self) -> Iterator[bool]:
        """Whether there is one."""
        self._place.mkdir()
        if not self._mount(f"size={DISK}m"):
            yield False
            return
        try:
            yield True
        finally:
            subprocess.run(["umount", "--lazy", str(self._place)], check=True)

    def fill(self) -> None:
        """Nothing more fits."""
        self.is_full, self.full_at = True, time.time()
        for _ in range(10):  # what is written meanwhile makes the number too small
            found = os.statvfs(self._place)
            if self._mount(f"remount,size={(found.f_blocks - found.f_bfree) * found.f_frsize}"):
                return

    def free(self) -> None:
        self._mount(f"remount,size={DISK}m")
        self.is_full, self.full_at = False, time.time() + LOOKED_AT

    def _mount(self, options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._place)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@dataclass
class Torment:
    """What can be done, by name; `done` counts it. Later ends of deeds are in `ends`."""

    around: World
    crew: Crew
    proxy: FeedProxy
    landings: Sequence[Landing]
    dice: random.Random
    disk: Disk | None
    done: Counter[str]
    ends: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    away: dict[str, threading.Thread] = field(default_factory=dict)

    def do(self, name: str) -> None:
        """One deed, counted unless nobody was there to suffer it."""
        if name == BOTH_UP:
            self.crew.wait_until_up()
            return
        what, _, whom = name.partition(" the ")
        if whom in ("active", "standby"):
            life = self.crew.active if whom == "active" else self.crew.standby
            did = life is not None and self._to_a_process(what, life)
        else:
            did = self._deeds()[name]()
        self.done[name if did else "nobody there for it"] += 1

    def tend(self) -> None:
        """What is over ends, and processes are looked after."""
        now = time.monotonic()
        for each in [each for each in self.ends if each[0] <= now]:
            self.ends.remove(each)
            each[1]()
        self.crew.tend()

    def calm(self) -> None:
        """All that was done ends."""
        for thread in list(self.away.values()):
            thread.join()
        for _, end in self.ends:
            end()
        self.ends.clear()
        for link in list(self.proxy.links):
            if link.is_frozen:
                link.cut()

    def _deeds(self) -> Mapping[str, Callable[[], bool]]:
        return {
            "cut a stream": lambda: self._to_a_link("cut"),
            "reset a stream": lambda: self._to_a_link("kill"),
            "freeze a stream": lambda: self._to_a_link("freeze"),
            "cut all streams": self._cut_all,
            "refuse streams": self._refuse,
            "drop events": self._drop,
            "destination away": self._send_away,
            "fill the disk": self._fill,
        }

    def _to_a_process(self, what: str, life: Life) -> bool:
        if what == "kill":
            self.crew.kill(life)
        elif not life.is_at_large:
            return False
        elif what == "end":
            self.crew.ask(life)
        else:
            self.crew.stop(life, self.dice.uniform(*STOPPED))
        return True

    def _to_a_link(self, what: str) -> bool:
        links = [link for link in list(self.proxy.links) if not link.is_frozen]
        if links:
            getattr(self.dice.choice(links), what)()
        return bool(links)

    def _cut_all(self) -> bool:
        self.around.feed.finish_streams(self.dice.choice((Finish.END, Finish.CUT, Finish.RESET)))
        return True

    def _refuse(self) -> bool:
        for path in (STREAM, SOCKET):
            self.around.feed.answer_streams(503, "SERVICE_UNAVAILABLE", times=2, path=path)
        return self._to_a_link("cut")

    def _drop(self) -> bool:
        self.around.feed.ledger.drop(self.dice.randint(*DROPPED))
        return True

    def _send_away(self) -> bool:
        here = [one for one in self.landings if one.outages and one.name not in self.away]
        if not here:
            return False
        one = self.dice.choice(here)
        how = self.dice.choice(sorted(one.outages))
        seconds = self.dice.uniform(*AWAY)

        def run() -> None:
            try:
                with one.outages[how]():
                    time.sleep(seconds)
            except AssertionError as error:  # its start takes long here: it is not sent away again
                print(f"{one.name} is not back yet: {error}", flush=True)
            else:
                del self.away[one.name]

        self.away[one.name] = threading.Thread(target=run, name=f"{one.name} away")
        self.away[one.name].start()
        self.done[f"  {one.name} {how}s"] += 1
        return True

    def _fill(self) -> bool:
        if self.disk is None or self.disk.is_full:
            return False
        self.disk.fill()
        self.ends.append((time.monotonic() + self.dice.uniform(*FULL), self.disk.free))
        return True


def at_random(
    seconds: float,
    dice: random.Random,
    weights: Mapping[str, int] = WEIGHTS,
    pause: tuple[float, float] = PAUSE,
) -> Iterator[tuple[float, str]]:
    """Deeds with the pause before each, for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        [name] = dice.choices(list(weights), list(weights.values()))
        yield dice.uniform(*pause), name


def run(
    around: World,
    landings: Sequence[Landing],
    deeds: Iterator[tuple[float, str]],
    rate: float,
    dice: random.Random,
    disk: Disk | None = None,
    *,
    wait_for_proof: bool = True,
    watch: Callable[[Torment], object] = lambda torment: None,
    retention: float | None = None,
    more: Mapping[str, object] = MappingProxyType({}),
) -> Reckoning:
    """Do `deeds` while `rate` events a second are published, let all of it settle, and account for every id.

    wait_for_proof: until the job itself has proven all; else the ledger is walked after its end.
    watch: called again and again meanwhile. retention: seconds for which ids and receipts are kept, and then
    no webhooks are sent, which at this rate come later than that; without it all is kept, and a witness keeps
    every event. more: further flags.
    Raises AssertionError when something never comes to pass.
    """
    around.deliver_to(landings)
    published, done = Published(), Counter[str]()
    feed = around.feed
    port = free_port()
    webhook = feed.ledger.register(PRACTICE_DEVELOPER, f"http://127.0.0.1:{port}/grantex", sorted(KNOWN))
    around.environment = {**around.environment, "WEBHOOK_SECRET": webhook.secret}
    sender = WebhookSender([webhook])
    feed.webhook_sender = sender if retention is None else None
    with FeedProxy(feed) as proxy:
        begin(around.state, proxy.url, webhook.id, witness=retention is None)
        kept = {} if retention is None else {"dedupe_horizon": retention, "receipt_retention": retention}
        flags = _flags(around, landings, proxy.url, port, {**more, **kept})
        with Crew(around, flags, lambda: disk is not None and disk.may_be_blamed, _counts(done)) as crew:
            torment = Torment(around, crew, proxy, landings, dice, disk, done)
            try:
                with feed.publishing(rate, published.events()), sender.ticking(WEBHOOKS_EVERY):
                    _go_through(torment, deeds, watch)
                    _pause(torment, 2.0, watch)
                    torment.calm()
                    crew.wait_until_up()
                _settle(crew, [one.name for one in landings], time.time() if wait_for_proof else 0.0)
            finally:
                torment.calm()
        if not wait_for_proof:
            prove_now(around.state, proxy.url, feed)
        gone_until = disk.full_at if disk else 0.0 if retention is None else time.time() - retention
        witness = retention is None
        found = reckon(around, proxy.url, landings, published, dice, gone_until, witness=witness)
    found.lines[:0] = [f"{number:>5} x {name}" for name, number in sorted(done.items())]
    if crew.excused:
        found.lines.append(f"{crew.excused} ends of a process for which there was no room on the disk")
    found.blame("processes", crew.faults)
    return found


def _counts(done: Counter[str]) -> Callable[[str], None]:
    return lambda what: done.update([what])


def _go_through(
    torment: Torment, deeds: Iterator[tuple[float, str]], watch: Callable[[Torment], object]
) -> None:
    for pause, name in deeds:
        _pause(torment, pause, watch)
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        torment.do(name)


def _pause(torment: Torment, seconds: float, watch: Callable[[Torment], object]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        torment.tend()
        watch(torment)
        time.sleep(0.05)


def _settle(crew: Crew, destinations: Sequence[str], proven: float) -> None:
    """Until all is delivered and, unless it is 0, proven up to then (epoch seconds); then both end."""

    def is_settled() -> bool:
        active = crew.active
        metrics = active.job.metrics() if active else {}
        pending = [metrics.get(("grantex_events_pending", name)) for name in destinations]
        until = metrics.get(("grantex_ledger_proven_until_timestamp_seconds", ""), 0.0)
        return not any(pending) and None not in pending and until >= proven

    crew.wait_until(is_settled, "all is delivered and proven", PROVEN if proven else SETTLED)
    crew.end(destinations)


def _flags(
    around: World, landings: Sequence[Landing], url: str, port: int, more: Mapping[str, object]
) -> list[str]:
    return around.flags(
        feed_url=url,
        feed_transport="both",
        feed_connections=2,
        standby="true",
        webhook_port=port,
        webhook_path="/grantex",
        webhook_secret="env:WEBHOOK_SECRET",
        ledger_webhook="auto",
        **{**paced(landings), **more},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 1 after anything that is not accounted for, with its ids."""
    parser = argparse.ArgumentParser(prog="tests.integration.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=300.0, help="events a second")
    parser.add_argument("--seed", type=int, help="the same deeds again")
    parser.add_argument("--evidence", type=Path, help="a new directory for state and logs, which are kept")
    given = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    dice = random.Random(seed + 1)  # whom deeds strike depends on who is there
    with contextlib.ExitStack() as stack:
        if given.evidence:
            given.evidence.mkdir(parents=True)
        place = given.evidence or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="grantex-torture-"))
        )
        around = stack.enter_context(world(place))
        servers = stack.enter_context(real_servers(place))
        landings = stack.enter_context(six(servers, around.splunk, around.out, "tortured"))
        disk = Disk(around.state)
        has_disk = stack.enter_context(disk.mounted())
        if given.evidence:
            stack.callback(lambda: shutil.copytree(around.state, place / "state-kept"))
        print(f"--seed={seed} --minutes={given.minutes:g} --rate={given.rate:g}")
        print("clock jumps are left out" + ("" if has_disk else ", and so is a full disk: it takes root"))
        deeds = at_random(given.minutes * 60, random.Random(seed))
        found = run(around, landings, deeds, given.rate, dice, disk if has_disk else None)
    print(found.table())
    print(f"{'every id is accounted for' if found.sound else 'FAILED'}; --seed={seed}")
    return 0 if found.sound else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except pytest.skip.Exception as error:
        sys.exit(f"a server cannot be had here ({error.msg})")
