"""docs/metrics.md, from the tables that the metrics themselves are made from.

`python -m pipelines.metrics_page > docs/metrics.md`
"""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.local import verdict
from pipelines.local.metrics import METRICS
from transforms.feed import status as feed_metrics
from transforms.write import metrics as write_metrics

_HEAD = """# Metrics

Made from pipelines/local/metrics.py, which `/metrics` is made from as well, and for clusters from
transforms/feed/status.py and transforms/write/metrics.py. Names, labels and meanings do not change. Rules,
alerts and a dashboard over them are in [packs.md](packs.md).

## One machine

`http://127.0.0.1:8787/metrics`, for Prometheus. Beside them `process_*`: CPU, memory, open files and the
start of the process, where the system tells them. A counter that is not "ever" begins at 0 with each start.

| metric | type | labels | |
|---|---|---|---|
"""
_STATES = """
`state` of `grantex_destination_state` is one of:

| state | on the page | |
|---|---|---|
"""
_CLUSTER = """
## A cluster

Counters, distributions and gauges of the job under `grantex/`. Beam's have no labels, so the name has them:
D is the destination, K one of its keys (000, 001, …), N the connection, CAUSE the first word of a dead
letter's cause, TYPE an event's type with `_` for each dot. They are whole numbers. A gauge is of one key or
one connection; [dataflow.md](dataflow.md) says which runner shows them.

| metric | type | |
|---|---|---|
"""


def markdown() -> str:
    """docs/metrics.md."""
    rows = []
    for it in METRICS:
        what = f"{it.help} Only {it.only}." if it.only else it.help
        rows.append(f"| `{it.shown}` | {it.kind.value} | {', '.join(it.labels)} | {what} |\n")
    states = [f"| `{state.name.lower()}` | {state.value} | {_care(state)} |\n" for state in verdict.State]
    cluster = [f"| `{name}` | {kind} | {what} |\n" for name, kind, what in _on_clusters()]
    return "".join([_HEAD, *rows, _STATES, *states, _CLUSTER, *cluster])


def _care(state: verdict.State) -> str:
    """Who has to care."""
    if state in verdict.HEALS_ITSELF:
        return "heals itself"
    return {
        verdict.Level.GOOD: "well",
        verdict.Level.WATCH: "a person looks at it when there is time",
        verdict.Level.TROUBLE: "a person is needed",
    }[verdict.LEVELS[state]]


def _on_clusters() -> Iterator[tuple[str, str, str]]:
    """Name, type and what it is."""
    for name, what in feed_metrics.COUNTERS.items():
        yield name, "counter", what
    yield feed_metrics.REPEATED, "counter", "Events that came by more than one connection."
    yield f"{feed_metrics.BY_TYPE}_TYPE", "counter", "Events that came in, by type; `other` is not known."
    yield f"{feed_metrics.CAUSES}_CAUSE", "counter", "The feed's dead letters, gaps among them."
    for name, what in feed_metrics.GAUGES.items():
        yield f"{name}_N", "gauge", what
    for name, what in write_metrics.COUNTERS.items():
        yield f"D_{name}", "counter", what
    yield f"D_{write_metrics.CAUSES}_CAUSE", "counter", "Dead letters of the destination."
    for name, what in write_metrics.DISTRIBUTIONS.items():
        yield f"D_{name}", "distribution", what
    for name, what in write_metrics.GAUGES.items():
        yield f"D_{name}_K", "gauge", what


if __name__ == "__main__":
    print(markdown(), end="")
