"""Parameters of the run as a whole, and of how requests over HTTP are made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipelines.parameters import Group, choice, optional_path, seconds, switch

GROUP = Group("Run")
IN_PROCESS = "DirectRunner"
DATAFLOW = "DataflowRunner"
# Tried in tests; Spark has no state and timers as this job needs them.
RUNNERS = (IN_PROCESS, DATAFLOW, "FlinkRunner", "PortableRunner", "PrismRunner")
HTTP = Group("HTTP destinations")


@dataclass(frozen=True, kw_only=True)
class RunParameters:
    demo: bool = switch(
        GROUP,
        "Run against a practice feed and practice destinations; nothing else is needed.",
        on_cluster="refused",
    )
    runner: str = choice(
        GROUP, IN_PROCESS, "DirectRunner is this machine, in one process; the others are clusters.", RUNNERS
    )
    drain_timeout: float = seconds(
        GROUP,
        25,
        "How long a drain may take before the rest is kept and the job ends; on Dataflow, how long it waits "
        "for a destination that takes nothing.",
    )
    ca_file: Path | None = optional_path(
        GROUP, "PEM file with a further certificate authority for feed and destinations.", "FILE"
    )

    @property
    def in_process(self) -> bool:
        """One machine, with lanes and a journal; otherwise one job on a cluster."""
        return self.runner == IN_PROCESS


@dataclass(frozen=True, kw_only=True)
class HttpParameters:
    http_compression: Literal["gzip", "none"] = choice(
        HTTP, "gzip", "How requests to Datadog and Splunk are compressed.", ("gzip", "none")
    )
