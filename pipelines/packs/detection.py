"""One detection: what it finds, why that matters, what to do, and how each language asks for it.

A language's text is written once, with `@{name}` where a threshold stands; `filled` puts the values in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Language = Literal["splunk", "datadog", "bigquery", "athena", "prometheus"]
LANGUAGES: tuple[Language, ...] = ("splunk", "datadog", "bigquery", "athena", "prometheus")
Severity = Literal["critical", "warning", "info"]

THRESHOLD = re.compile(r"@\{(\w+)\}")
FUNCTION = re.compile(r"@\{(\w+):([^}]*)\}")


@dataclass(frozen=True)
class Threshold:
    """A value that users change, and what it is."""

    value: int | str
    meaning: str


@dataclass(frozen=True)
class Search:
    """A saved search of Splunk. All of them read each event once and call their columns as the SQL does.

    spl: begins with the macro `grantex_index`.
    minutes: an alert looks, every five minutes, at what was indexed in so many of them: a late event is not
        missed. 0: it looks at everything since `earliest`, and its rows say how new they are.
    earliest: how old an event may be, by its own time.
    cron: when an alert runs, for minutes=0.
    once_per: an alert is not repeated for the same values of these fields ...
    quiet: ... for this long.
    """

    spl: str
    earliest: str = "-24h"
    minutes: int = 5
    cron: str = "7 * * * *"
    once_per: tuple[str, ...] = ()
    quiet: str = "1h"


@dataclass(frozen=True)
class Monitor:
    """A log monitor of Datadog: it counts ids and not logs, so that a repeat does not count twice.

    search: beside source:grantex.
    by: one alert for each value of these attributes.
    window: what is counted, by the event's own time; long enough for an event that arrives minutes late.
    critical, warning: thresholds by name, or numbers; it alerts above them.
    """

    search: str
    by: tuple[str, ...] = ()
    window: str = "15m"
    critical: str = "0"
    warning: str = ""


@dataclass(frozen=True)
class NewValue:
    """A rule of Datadog Cloud SIEM, which remembers values: log monitors cannot say "never seen before"."""

    search: str
    attribute: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """An alerting rule of Prometheus. todo: what whoever is called does, for docs/runbook.md."""

    alert: str
    expr: str
    lasts: str
    severity: Severity
    summary: str
    todo: str


@dataclass(frozen=True)
class Detection:
    """One entry of the catalogue.

    alerts: somebody is told; else it is a report that is looked at.
    known_as: what the service's own guides call it, where that is the same thing.
    without: languages that cannot say it, each with the reason.
    """

    name: str
    title: str
    why: str
    todo: str
    severity: Severity = "warning"
    alerts: bool = True
    thresholds: Mapping[str, Threshold] = field(default_factory=dict)
    known_as: tuple[str, ...] = ()
    sql: str = ""
    splunk: Search | None = None
    datadog: Monitor | NewValue | None = None
    on_dashboard: bool = False
    rules: Sequence[Rule] = ()
    without: Mapping[Language, str] = field(default_factory=dict)

    def filled(self, text: str) -> str:
        """`text` with this detection's thresholds. Raises KeyError for one that it does not have."""
        return THRESHOLD.sub(lambda found: str(self.thresholds[found[1]].value), text)

    def languages(self) -> tuple[Language, ...]:
        """Those that it is said in."""
        said = {
            "splunk": self.splunk is not None,
            "datadog": self.datadog is not None or self.on_dashboard,
            "bigquery": bool(self.sql),
            "athena": bool(self.sql),
            "prometheus": bool(self.rules),
        }
        return tuple(one for one in LANGUAGES if said[one])


def expanded(text: str, functions: Mapping[str, Callable[..., str]]) -> str:
    """`text` with each `@{function:argument,argument}` replaced by what the function makes of it."""
    return FUNCTION.sub(lambda found: functions[found[1]](*found[2].split(",")), text)
