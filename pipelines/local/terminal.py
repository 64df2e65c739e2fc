"""What a person sees in a terminal while the job runs: a few live lines, refreshed in place."""

from __future__ import annotations

import sys
import threading
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.local.snapshot import DestinationSnapshot, Look, Snapshot

REFRESH = 0.5  # seconds


class Terminal:
    """Live lines on stdout when that is a terminal; otherwise nothing, the log says what happens."""

    def __init__(self, look: Look, *, live: bool | None = None) -> None:
        self._look = look
        self._is_live = sys.stdout.isatty() if live is None else live
        self._display: Live | None = None
        self._before: tuple[float, dict[str, int]] | None = None

    def __enter__(self) -> Terminal:
        if self._is_live:
            self._display = Live(self._picture(), console=Console(), auto_refresh=False)
            self._display.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._display is not None:
            self._display.update(self._picture(), refresh=True)
            self._display.stop()

    def wait(self, stop: threading.Event) -> None:
        """Show what happens until `stop` is set."""
        if self._display is None:
            stop.wait()
            return
        while not stop.wait(REFRESH):
            self._display.update(self._picture(), refresh=True)

    def _picture(self) -> Table:
        snapshot = self._look()
        picture = Table.grid(padding=(0, 2))
        picture.add_row(Text("feed", style="bold"), Text(_feed_line(snapshot)))
        counts = {item.name: item.books.delivered for item in snapshot.destinations}
        for item in snapshot.destinations:
            rate = self._rate(item, snapshot.at)
            picture.add_row(Text(item.name, style="bold"), _destination_line(item, rate))
        self._before = (snapshot.at, counts)
        return picture

    def _rate(self, item: DestinationSnapshot, now: float) -> float:
        if self._before is None:
            return 0.0
        then, counts = self._before
        return max(0, item.books.delivered - counts.get(item.name, 0)) / max(now - then, 0.001)


def _feed_line(snapshot: Snapshot) -> str:
    doing = ", ".join(f"{status.phase.value}" for status in snapshot.connections)
    why = next((status.why for status in snapshot.connections if status.why), "")
    line = f"{doing}{': ' + why if why else ''} · {snapshot.received:,} received"
    if snapshot.gaps:
        line += f" · {snapshot.gaps} gap{'s' * (snapshot.gaps > 1)} on record"
    return line


def _destination_line(item: DestinationSnapshot, rate: float) -> Text:
    books = item.books
    line = Text(
        f"{books.delivered:,} delivered · {books.pending:,} pending · lag {item.lag:.1f} s · {rate:,.0f}/s"
    )
    if books.dead_lettered:
        line.append(f" · {books.dead_lettered:,} dead letters", style="yellow")
    if item.delivery is None:
        line.append(" · removed, its events are kept", style="yellow")
    elif item.failure:
        line.append(f" · restarting: {item.failure}", style="red")
    elif item.delivery.circuit.open:
        line.append(f" · left alone for now: {item.delivery.circuit.why}", style="red")
    else:
        line.append(" · ok", style="green")
    return line
