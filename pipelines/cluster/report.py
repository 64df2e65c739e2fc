"""How a cluster's destinations are doing, by the job's gauges: said by the process that watches it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.local.verdict import DestinationVerdict, of_circuit, of_names
from transforms.write.delivery.status import CircuitStatus
from transforms.write.metrics import NAMESPACE

log = logging.getLogger("grantex.run")
EVERY = 60.0  # seconds between two looks


class Report:
    """Says what changes; on one machine the page does, in the same words."""

    def __init__(self, result: Any, names: Iterable[str]) -> None:
        """result: of the job, which runs. names: of its destinations."""
        self._result, self._names = result, list(names)
        self._said: dict[str, str] = {}

    def look(self) -> None:
        """Look once, and log what is new."""
        shown = gauges(self._result)
        if shown is None:
            return
        for name in self._names:
            found = state_of(name, shown)
            says = "" if found is None else of_names([name], found.state)
            if says != self._said.get(name, ""):
                self._said[name] = says
                if says:
                    log.warning("%s The workers' log says why.", says)
                else:
                    log.info("%s takes events again", name)


def state_of(name: str, shown: Mapping[str, int]) -> DestinationVerdict | None:
    """How a destination is doing, by its keys' gauges; None when nothing is wrong."""

    def any_key(gauge: str) -> bool:
        begin = f"{name}_{gauge}_"
        return any(value for each, value in shown.items() if each.startswith(begin))

    return of_circuit(CircuitStatus(open=any_key("circuit_open"), needs_you=any_key("needs_you")))


def gauges(result: Any) -> Mapping[str, int] | None:
    """Our gauges by name; None when the runner gives none."""
    found = metrics(result, "gauges")
    if found is None:
        return None
    return {one.key.metric.name: int(getattr(one.result, "value", one.result) or 0) for one in found}


def metrics(result: Any, kind: str) -> list[Any] | None:
    """Ours of one kind ("counters", "gauges"), as they are now; None when the runner gives none."""
    try:
        found = result.metrics().query()[kind]
    except Exception:  # noqa: BLE001 - each runner has its own way to say that it cannot
        return None
    finally:
        if hasattr(result, "_metrics"):
            result._metrics = None  # Beam would give this answer for ever, also to who asks at the end
    return [one for one in found if one.key.metric.namespace == NAMESPACE]
