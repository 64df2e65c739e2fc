"""Parameters of the status page and of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipelines import values
from pipelines.parameters import Group, choice, text, whole

GROUP = Group("Watching")


@dataclass(frozen=True, kw_only=True)
class WatchingParameters:
    status_port: int = whole(
        GROUP,
        8787,
        "Port of the status page; 0 is off.",
        at_least=0,
        at_most=65_535,
        on_cluster="ignored",
    )
    status_host: str = text(
        GROUP,
        "127.0.0.1",
        "Address the status page listens on.",
        read=values.host,
        on_cluster="ignored",
    )
    log_format: Literal["auto", "text", "json"] = choice(
        GROUP, "auto", "auto is text on a terminal, else json.", ("auto", "text", "json")
    )
    log_level: str = choice(GROUP, "INFO", "The least that is logged.", ("DEBUG", "INFO", "WARNING", "ERROR"))
