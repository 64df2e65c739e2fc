"""Parameters of the run as a whole, and of how requests over HTTP are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.parameters import Group, choice, optional_path, seconds, switch

GROUP = Group("Run")
HTTP = Group("HTTP destinations")


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    demo: bool = switch(
        GROUP, "Run against a practice feed and practice destinations; nothing else is needed."
    )
    runner: str = choice(
        GROUP,
        "DirectRunner",
        "Beam's runner, here its in-process one.",
        ("DirectRunner",),
        later="clusters (Dataflow, Flink) come later",
    )
    drain_timeout: float = seconds(
        GROUP, 25, "How long a drain may take before the rest is kept and the job ends."
    )
    ca_file: Path | None = optional_path(
        GROUP, "PEM file with a further certificate authority for feed and destinations.", "FILE"
    )


@dataclass(frozen=True, kw_only=True)
class HttpParameters:
    http_compression: Literal["gzip", "none"] = choice(
        HTTP, "gzip", "How requests to Datadog and Splunk are compressed.", ("gzip", "none")
    )
