"""Parameters of what is kept on this machine: journal and dead letters."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipelines import values
from pipelines.parameters import Group, byte_count, directory, names, seconds, text, whole

GROUP = Group("What is kept")
REMOTE = ("gs://", "s3://")


def place(text: str) -> str:
    """A directory of this machine, or what names begin with in a bucket, without a slash at its end."""
    if not text.startswith(REMOTE):
        return str(values.path(text))
    if not values.printable(text).rstrip("/").partition("://")[2]:
        raise ValueError("must name a bucket after ://")
    return text.rstrip("/")


@dataclass(frozen=True, kw_only=True)
class KeepingParameters:
    state_dir: Path = directory(
        GROUP,
        Path("state"),
        "Journal and dead letters; the demo has a temporary one.",
        default_text="./state",
        in_demo=False,
        on_cluster="refused",
    )
    journal_max_bytes: int = byte_count(
        GROUP,
        10 * 1024**3,
        "Past it the feed is not read until destinations catch up.",
        at_least=1_000_000,
        on_cluster="ignored",
    )
    dedupe_horizon: float = seconds(GROUP, 3600, "How long a repeated event id is recognised.")
    dead_letters: str = text(
        GROUP,
        "",
        "Where rejected events are written: a directory, or a gs:// or s3:// prefix.",
        read=place,
        placeholder="DIRECTORY",
        pattern=r"(gs|s3)://[^\s/]+(/\S*)?",
        default_text="<state_dir>/dead_letters",
        example="gs://my-bucket/dead_letters",
    )
    dead_letter_limit: int = whole(
        GROUP, 10_000, "Dead letters in one hour after which a destination pauses.", at_least=1
    )
    forget_destination: tuple[str, ...] = names(
        GROUP,
        "A removed destination whose kept events may go.",
        repeatable=True,
        in_demo=False,
        on_cluster="refused",
        example="splunk",
    )

    @property
    def dead_letters_place(self) -> str:
        """Where a run on one machine keeps dead letters, also when `dead_letters` was not given."""
        return self.dead_letters or str(self.state_dir / "dead_letters")
