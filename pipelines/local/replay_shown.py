"""What a person sees of a replay: how far it is, and what it came to."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from pipelines.local.terminal import AboveLive
from transforms.archive.choice import Archive

if TYPE_CHECKING:
    from pipelines.local.replay_lanes import Lane

log = logging.getLogger("grantex.replay")

TELL_EVERY = 10.0  # seconds between lines about how far it is, where there is no terminal
# What is counted of an archive or a choice and is not left out.
NOT_LEFT_OUT = ("events", "chosen", "rebuilt")


@dataclass
class Outcome:
    """What a replay came to for one destination. found, chosen: counts of `Archive.read` and of `Choice`."""

    name: str
    found: Counter[str] = field(default_factory=Counter)
    chosen: Counter[str] = field(default_factory=Counter)
    delivered: int = 0
    dead_lettered: int = 0
    failure: str = ""

    @property
    def complete(self) -> bool:
        """Everything that was asked for is there, as far as the archive could be read."""
        return not (self.failure or self.dead_lettered or self.found["damaged"] or self.found["no events"])


def left_out(counts: Counter[str]) -> str:
    """What was not sent, and why: "12 repeats, 100 have a receipt"."""
    return ", ".join(
        f"{number:,} {why}" for why, number in counts.items() if why not in NOT_LEFT_OUT and number
    )


def found(counts: Counter[str]) -> str:
    """What an archive had in it, in words."""
    parts = [f"{counts['events']:,} events"]
    if counts["rebuilt"]:
        parts.append(f"{counts['rebuilt']:,} of them rebuilt from columns (the same content, other bytes)")
    if left := left_out(counts):
        parts.append(f"left out: {left}")
    return "; ".join(parts)


def table(archive: Archive, outcomes: Sequence[Outcome], kept: str) -> str:
    """What a replay came to, a line for each destination, with what to do about what is left."""
    longest = max((each.found for each in outcomes), key=lambda counts: counts["events"])
    lines = [f"From {archive.source}: {found(longest)}"]
    lines.append(f"{'destination':<20} {'delivered':>12} {'dead letters':>13}  left out")
    for each in outcomes:
        left = left_out(each.chosen) or "-"
        lines.append(f"{each.name:<20} {each.delivered:>12,} {each.dead_lettered:>13,}  {left}")
        if each.failure:
            lines.append(f"  not complete: {each.failure}")
    if any(each.dead_lettered for each in outcomes):
        lines.append(f"Dead letters of this replay: {kept}")
    return "\n".join(lines)


class Shown:
    """A bar for each destination where stdout is a terminal; else a line in the log now and then."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        work: int,
        console: Console | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lanes, self._work, self._monotonic = lanes, work, monotonic
        self._console = console or Console()
        self._began = self._told = monotonic()
        self._progress: Progress | None = None
        if self._console.is_terminal:
            words = TextColumn("{task.fields[delivered]:,} delivered, {task.fields[rate]:,.0f}/s")
            columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), words)
            self._progress = Progress(*columns, TimeRemainingColumn(), console=self._console)
            for each in lanes:
                self._progress.add_task(each.outcome.name, total=work or None, delivered=0, rate=0.0)

    def __enter__(self) -> Shown:
        if self._progress is not None:
            self._above = AboveLive(self._console)
            self._progress.start()
            self._above.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._above.give_back()

    def look(self) -> None:
        """Show how far it is now."""
        now = self._monotonic()
        if self._progress is not None:
            for number, each in enumerate(self._lanes):
                delivered = each.outcome.delivered
                rate = delivered / max(now - self._began, 0.1)
                done = min(each.work, self._work)
                self._progress.update(
                    self._progress.task_ids[number], completed=done, delivered=delivered, rate=rate
                )
        elif now - self._told >= TELL_EVERY:
            self._told = now
            for each in self._lanes:
                part = f"{min(each.work / self._work, 1.0):.0%} read, " if self._work else ""
                log.info("%s: %s%d delivered", each.outcome.name, part, each.outcome.delivered)
