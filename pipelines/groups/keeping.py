"""Parameters of what is kept on this machine: journal and dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines.parameters import Group, byte_count, directory, names, optional_path, seconds, whole

GROUP = Group("What is kept")


@dataclass(frozen=True, kw_only=True)
class KeepingParameters:
    state_dir: Path = directory(
        GROUP,
        Path("state"),
        "Journal and dead letters; the demo has a temporary one.",
        default_text="./state",
        in_demo=False,
    )
    journal_max_bytes: int = byte_count(
        GROUP, 10 * 1024**3, "Past it the feed is not read until destinations catch up.", at_least=1_000_000
    )
    dedupe_horizon: float = seconds(GROUP, 3600, "How long a repeated event id is recognised.")
    dead_letters: Path | None = optional_path(
        GROUP, "Where rejected events are written.", "DIRECTORY", default_text="<state_dir>/dead_letters"
    )
    dead_letter_limit: int = whole(
        GROUP, 10_000, "Dead letters in one hour after which a destination pauses.", at_least=1
    )
    forget_destination: tuple[str, ...] = names(
        GROUP,
        "A removed destination whose kept events may go.",
        repeatable=True,
        in_demo=False,
        example="splunk",
    )

    @property
    def dead_letters_dir(self) -> Path:
        """Where dead letters go, also when `dead_letters` was not given."""
        return self.dead_letters or self.state_dir / "dead_letters"
