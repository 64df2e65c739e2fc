"""bqemulator that shows a view's query, as BigQuery's tables.get does and the emulator does not."""

from __future__ import annotations

import json
from typing import Any

import httpx

from pipelines.practice.http_server import Answer, HttpServer, Request


class ShowingViews(HttpServer):
    """Hands everything on to the emulator at `rest`. views: queries by the table's path, as they were set."""

    def __init__(self, rest: str) -> None:
        super().__init__()
        self._rest = rest
        self.views: dict[str, Any] = {}

    def judge(self, request: Request) -> Answer:
        headers = {"Content-Type": "application/json"}
        url = self._rest + request.target
        reply = httpx.request(request.method, url, headers=headers, content=request.body, timeout=60)
        body = reply.content
        if reply.is_success and "/tables" in request.path and body:
            found = json.loads(body)
            sent = json.loads(request.body) if request.body else {}
            path = request.path
            if request.method == "POST" and "tableReference" in found:
                path += f"/{found['tableReference']['tableId']}"
            if "view" in sent:
                self.views[path] = sent["view"]
            if path in self.views:
                body = json.dumps({**found, "type": "VIEW", "view": self.views[path]}).encode()
        return Answer(reply.status_code, body)
