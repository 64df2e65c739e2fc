"""Log lines above the live lines: while those are shown, what is logged goes through the same console."""

from __future__ import annotations

import logging
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

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
