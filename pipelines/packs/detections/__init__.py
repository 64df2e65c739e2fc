"""The catalogue: every detection, each written once. To add one, see CONTRIBUTING."""

from __future__ import annotations

from collections.abc import Sequence

from pipelines.packs.detection import Detection
from pipelines.packs.detections import agents, audit, budgets, exporter, grants

# In the order of the documents.
CATALOGUE: Sequence[Detection] = (
    *grants.DETECTIONS,
    *budgets.DETECTIONS,
    *agents.DETECTIONS,
    *audit.DETECTIONS,
    *exporter.DETECTIONS,
)

# What the service's guides call detections and no event can show, each with the reason and what is nearest.
NOT_SHOWN = {
    "token_replay": "No event says that a token was used or verified, only that it was issued. Where the "
    "service sees a replay itself it sends anomaly.detected: see anomalies.",
    "off_hours_activity": "Events have times in UTC, but not the hours or the time zone in which a principal "
    "works. volume_by_type shows each hour; add your own hours to the SQL or SPL of principal_audit.",
    "high_failure_rate": "What fails makes no event. The service's own metrics count it: see the rules of "
    "grantex_service (token exchanges that fail).",
    "concurrent_sessions": "sso.login says when a session began, nothing says when it ended.",
    "geo_anomaly": "No event has an address or a place. Where the service sees one it sends "
    "anomaly.detected: see anomalies.",
}


def named(name: str) -> Detection:
    """Raises KeyError."""
    return {one.name: one for one in CATALOGUE}[name]
