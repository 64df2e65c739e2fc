"""A real Prometheus and a real Alertmanager, from Debian."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.servers.process import (
    ServerProcess,
    free_port,
    listens,
    unavailable,
)

PACKAGES = {
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
}


def program(name: str) -> str:
    """Where it is. Alertmanager must really be installed: Debian's reads its templates from /usr/share."""
    path = shutil.which(name)
    if path is None:
        unavailable(f"{name} is not installed (Debian: apt install {PACKAGES[name]})")
    return path


class Prometheus:
    """A Prometheus that scrapes one target four times a second, and evaluates rules as often."""

    def __init__(self, place: Path, target: int, rules: Sequence[Path] = (), alertmanager: int = 0) -> None:
        self.port = free_port()
        config = place / "prometheus.yml"
        told = f"[{{static_configs: [{{targets: ['127.0.0.1:{alertmanager}']}}]}}]"
        alerting = f"alerting: {{alertmanagers: {told}}}\n"
        config.write_text(
            "global: {scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms}\n"
            "scrape_configs:\n"
            "- job_name: grantex-beam\n"
            f"  static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
            f"rule_files: {json.dumps([str(path) for path in rules])}\n" + (alerting if alertmanager else "")
        )
        self.process = ServerProcess(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={place / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            place / "prometheus.log",
        )

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and value of every series that `expression` finds now."""
        query = urllib.parse.urlencode({"query": expression})
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.port}/api/v1/query?{query}", timeout=5
        ) as answer:
            found = json.load(answer)["data"]["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def value(self, expression: str) -> float:
        """The one value of `expression`; -1 while there is none."""
        found = self.query(expression)
        return found[0][1] if len(found) == 1 else -1.0

    def wait_for(self, expression: str) -> None:
        """Wait until a comparison holds."""
        self.process.wait_until(lambda: bool(self.query(expression)), expression, timeout=30)


class Alertmanager:
    """An Alertmanager with this configuration, alone (it looks for no others)."""

    def __init__(self, place: Path, configuration: str) -> None:
        self.port = free_port()
        config = place / "alertmanager.yml"
        config.write_text(configuration)
        self.process = ServerProcess(
            [
                program("prometheus-alertmanager"),
                f"--config.file={config}",
                f"--storage.path={place / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--cluster.listen-address=",
            ],
            place / "alertmanager.log",
        )
        self.process.wait_until(lambda: listens(self.port), "Alertmanager")


class Told:
    """Whom Alertmanager tells: a server on `port` that keeps what it is sent."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []
        told = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.alerts.extend(body["alerts"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port

    def of(self, alert: str, status: str = "firing") -> list[dict[str, Any]]:
        found = list(self.alerts)
        return [one for one in found if (one["labels"]["alertname"], one["status"]) == (alert, status)]

    def __enter__(self) -> Told:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
