"""The books of a job that has ended, from its Beam counters: what came in and is nowhere to be found."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines import exit_codes
from transforms.metrics import NAMESPACE
from transforms.write.dead_letters.objects import LetterObjects

log = logging.getLogger("grantex.run")


def close(result: Any, destinations: Iterable[str], *, savepoint: bool = False) -> int:
    """Say what the counters of a job that is done say; returns the exit code.

    savepoint: it may have been stopped with one, and what was under way is in there.
    """
    counted = counters(result)
    if counted is None:
        log.warning("drained; whether anything is missing is not known, as the runner has counted nothing")
        return exit_codes.DRAINED
    lacking = missing(counted, destinations)
    if not lacking:
        log.info("drained: every event received is delivered or a dead letter")
        return exit_codes.DRAINED
    for name, number in lacking.items():
        if savepoint:
            log.warning("%s: %d are in the savepoint the job was stopped with, else lost", name, number)
        else:
            log.error("%s: %d are lost: received, and neither delivered nor a dead letter", name, number)
    return exit_codes.DRAINED if savepoint else exit_codes.FAILED


def counters(result: Any) -> Mapping[str, int] | None:
    """Our counters over all stages, by name; None when the runner gives none."""
    try:
        found = result.metrics().query()["counters"]
    except Exception:  # noqa: BLE001 - each runner has its own way to say that it cannot
        return None
    sums: dict[str, int] = {}
    for one in found:
        if one.key.metric.namespace == NAMESPACE:
            sums[one.key.metric.name] = sums.get(one.key.metric.name, 0) + (one.result or 0)
    return sums or None


def missing(counted: Mapping[str, int], destinations: Iterable[str]) -> dict[str, int]:
    """For each destination with any: events received that are neither delivered there nor dead letters.

    An id that came through two connections is one event. For the objects of dead letters, under their own
    name: those that were not written. What was delivered twice can hide what is missing, so this may find
    too few and never too many.
    """
    due = counted.get("feed_events_received", 0) - counted.get("feed_events_repeated", 0)
    found = {
        name: due
        - counted.get(f"{name}_events_delivered", 0)
        - counted.get(f"{name}_events_dead_lettered", 0)
        for name in destinations
    }
    letters = LetterObjects.name
    # Those that are given up at the drain are no dead letters of anybody.
    found[letters] = counted.get(f"{letters}_events_received", 0) - counted.get(
        f"{letters}_events_delivered", 0
    )
    return {name: number for name, number in found.items() if number > 0}
