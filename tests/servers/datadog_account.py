"""A practice Datadog with what an account holds: log pipelines, metrics made of logs, monitors, dashboards.

From Datadog's API reference; it keeps what it is given, adds what Datadog adds, and asks for both keys. There
is an application key that may do all (APP_KEY), and one that may only read (READ_ONLY_KEY).
"""

from __future__ import annotations

import json
from typing import Any

from pipelines.practice.datadog import VALIDATE_PATH, PracticeDatadog
from pipelines.practice.http_server import Answer, Request

APP_KEY = "practice-datadog-application-key"
READ_ONLY_KEY = "practice-datadog-reading-key"
PIPELINES = "/api/v1/logs/config/pipelines"
METRICS = "/api/v2/logs/config/metrics"
MONITORS = "/api/v1/monitor"
DASHBOARDS = "/api/v1/dashboard"
Body = dict[str, Any]
WHEN = "2026-03-01T12:00:00.000000+00:00"
# What Datadog answers with besides what it was given.
BESIDES: dict[str, Body] = {
    PIPELINES: {"type": "pipeline", "is_read_only": False},
    METRICS: {},
    MONITORS: {"created": WHEN, "modified": WHEN, "multi": True, "overall_state": "No Data"},
    DASHBOARDS: {
        "author_handle": "admin@example.com",
        "created_at": WHEN,
        "modified_at": WHEN,
        "url": "/d/1",
    },
}


class AccountDatadog(PracticeDatadog):
    """kept: bodies by path and id."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[str, Body]] = {path: {} for path in BESIDES}

    def judge(self, request: Request) -> Answer:
        path = next((one for one in BESIDES if f"{request.path}/".startswith(f"{one}/")), "")
        name = request.path.removeprefix(path).strip("/")
        if not path or request.path == VALIDATE_PATH:
            return super().judge(request)
        key = request.headers.get("dd-application-key")
        if request.headers.get("dd-api-key") != self.key or key not in (APP_KEY, READ_ONLY_KEY):
            return refused(403, "Unauthorized" if not key else "Forbidden")
        if key == READ_ONLY_KEY and request.method != "GET":
            return refused(403, "Failed permission authorization checks")
        return self._account(request, path, name)

    def _account(self, request: Request, path: str, name: str) -> Answer:
        kept = self.kept[path]
        if name and name not in kept:
            return refused(404, "Not Found")
        if request.method == "POST":
            body = json.loads(request.body)
            name = str(body["data"]["id"] if path == METRICS else len(kept) + 1)
            if name in kept:
                return refused(409, "Conflict")
            number: Any = int(name) if path == MONITORS else name
            kept[name] = {**BESIDES[path], **body, **({} if path == METRICS else {"id": number})}
        elif request.method == "PUT":
            kept[name].update(json.loads(request.body))
        elif not name:
            return self._listed(path)
        return Answer(200, json.dumps(kept[name]).encode())

    def _listed(self, path: str) -> Answer:
        found = list(self.kept[path].values())
        if path == DASHBOARDS:  # a summary of each
            short = [{"id": one["id"], "title": one["title"]} for one in found]
            return Answer(200, json.dumps({"dashboards": short}).encode())
        return Answer(200, json.dumps(found).encode(), (("Content-Type", "application/json"),))


def refused(status: int, *errors: str) -> Answer:
    return Answer(status, json.dumps({"errors": errors}).encode())
