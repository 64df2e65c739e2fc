"""What a person sees in a terminal while the job runs: a few live lines below the log, refreshed in place."""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pipelines.local import verdict
from pipelines.local.snapshot import DestinationSnapshot, Look, Rates, Snapshot
from pipelines.local.verdict import Level, Verdict, duration

STYLES = {" WARNING ": "yellow", " ERROR ": "red", " CRITICAL ": "bold red"}


class AboveLive:
    """Takes over the log handlers that write to the same terminal, and gives them back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._taken: list[tuple[logging.StreamHandler[Any], Any]] = []

    def take(self) -> None:
        """From now on those handlers' lines go above the live lines; a log to a file stays there."""
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler and _is_terminal(handler.stream):
                self._taken.append((handler, handler.setStream(_Lines(self._console))))

    def give_back(self) -> None:
        """The handlers write where they wrote before."""
        while self._taken:
            handler, stream = self._taken.pop()
            handler.setStream(stream or sys.stderr)


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


class _Lines:
    """As much of a stream as a logging handler needs: a record is one write."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def write(self, text: str) -> int:
        if line := text.rstrip("\n"):
            head = line.partition("\n")[0][:24]
            style = next((style for word, style in STYLES.items() if word in head), "")
            self._console.print(Text(line, style), highlight=False)
        return len(text)

    def flush(self) -> None:
        """A console keeps nothing back."""


REFRESH_PER_SECOND = 2.0
MOST_TROUBLES = 3  # told in full
MARKS = {Level.GOOD: ("✓", "green"), Level.WATCH: ("◆", "yellow"), Level.TROUBLE: ("▲", "bold red")}


class Terminal:
    """Live lines on stdout when that is a terminal; otherwise nothing, the log says what happens.

    page: the status page's address, "" when it is off. live: whether stdout is a terminal, None to find out.
    """

    def __init__(
        self, look: Look, page: str = "", *, live: bool | None = None, console: Console | None = None
    ) -> None:
        self._look = look
        self._page = page
        self._rates = Rates()
        self._display: Live | None = None
        self._lines: AboveLive | None = None
        if sys.stdout.isatty() if live is None else live:
            console = console or Console()
            self._lines = AboveLive(console)
            self._display = Live(
                console=console,
                get_renderable=self._picture,
                refresh_per_second=REFRESH_PER_SECOND,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Terminal:
        if self._display is not None and self._lines is not None:
            self._display.start(refresh=True)
            self._lines.take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the final state standing."""
        if self._display is not None and self._lines is not None:
            self._display.stop()
            self._lines.give_back()

    def _picture(self) -> RenderableType:
        snapshot = self._look()
        self._rates.add(snapshot)
        return picture(snapshot, self._rates, self._page)


def picture(snapshot: Snapshot, rates: Rates, page: str) -> RenderableType:
    """The run at a glance, within 80 columns: a verdict, the feed, a row for each destination, troubles."""
    run = verdict.of_run(snapshot)
    lines: list[RenderableType] = [Text(), _marked(run), _feed(snapshot, rates)]
    if snapshot.standing_by is None:
        lines += [_table(snapshot, rates), *_troubles(snapshot)]
    lines.append(_foot(snapshot, page))
    return Group(*lines)


def _marked(run: Verdict) -> RenderableType:
    sign, style = MARKS[run.level]
    line = Table.grid(padding=(0, 1))
    line.add_row(Text(sign, style), Text(run.text, "bold" if run.level is not Level.GOOD else ""))
    return line


def _feed(snapshot: Snapshot, rates: Rates) -> Text:
    standby = snapshot.standing_by
    parts = [f"{snapshot.received:,} received", f"{rates.received:,.0f}/s"]
    if standby is not None:
        parts = [f"{standby.events:,} events held, {standby.bytes / 1e6:.1f} MB"]
    heard = snapshot.last_event_at
    if heard:
        parts.append(f"last event {duration(snapshot.at - heard)} ago")
    parts.append(f"{snapshot.live} of {len(snapshot.connections)} connected")
    if snapshot.feed_dead_letters:
        parts.append(f"{snapshot.feed_dead_letters:,} unreadable")
    if snapshot.gaps:
        parts.append(f"{snapshot.gaps:,} gap{'s' * (snapshot.gaps > 1)} on record")
    line = Text.assemble(("feed ", "bold"), " · ".join(parts))
    why = next((verdict.said(each.why) for each in snapshot.connections if each.why), "")
    return line.append(f"\n     {why}", style="red") if why else line


def _table(snapshot: Snapshot, rates: Rates) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("", style="bold", overflow="ellipsis", max_width=16)
    filters = any(item.books.filtered for item in snapshot.destinations)
    for title in ("delivered", *(["filtered"] if filters else []), "pending", "lag", "rate", "dead"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for item in snapshot.destinations:
        found = verdict.of_destination(item)
        sign, style = MARKS[found.level]
        books = item.books
        table.add_row(
            Text(item.name),
            f"{books.delivered:,}",
            *([f"{books.filtered:,}"] if filters else []),
            f"{books.pending:,}",
            duration(item.lag),
            f"{rates.delivered(item.name):,.0f}/s",
            Text(f"{books.dead_lettered:,}", "yellow" if books.dead_lettered else ""),
            Text(f"{sign} {found.state.value}", "" if found.level is Level.GOOD else style),
        )
    return table


def _troubles(snapshot: Snapshot) -> list[RenderableType]:
    """The worst few in full, so that all fits a small terminal; the table has a word for each."""
    worst = sorted(
        (item for item in snapshot.destinations if verdict.of_destination(item).level is not Level.GOOD),
        key=lambda item: verdict.of_destination(item).level is not Level.TROUBLE,
    )
    return [_trouble(item, snapshot.at) for item in worst[:MOST_TROUBLES]]


def _trouble(item: DestinationSnapshot, now: float) -> RenderableType:
    found = verdict.of_destination(item)
    text = Text(found.why)
    probe = item.delivery.circuit.next_probe if item.delivery and not item.failure else None
    if probe is not None:
        text.append(f" Next try {f'in {duration(probe - now)}' if probe > now else 'now'}.")
    if found.to_do:
        text.append(f" {found.to_do}", style="dim")
    box = Table.grid(padding=(0, 1))
    box.add_row(Text(f"{item.name}:", MARKS[found.level][1]), text)
    return box


def _foot(snapshot: Snapshot, page: str) -> Text:
    wrong = [item.name for item in snapshot.destinations if not item.books.balanced]
    books = f"books wrong: {', '.join(wrong)}" if wrong else "books balanced"
    if snapshot.standing_by is not None:
        books = "standing by"
    parts = [books, f"running {duration(snapshot.at - snapshot.started_at)}", page]
    return Text(" · ".join(part for part in parts if part), style="red" if wrong else "dim")
