"""`provision pubsub` against as much of Pub/Sub's REST as it asks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.practice.http_server import Answer, HttpServer, Request
from tests.pipelines.provision.conftest import Run

TOPIC = "projects/practice/topics/events"
SUBSCRIPTION = "projects/practice/subscriptions/events"


class PubSub(HttpServer):
    """Topics and subscriptions by their names. A subscription without a policy gets the default one."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, dict[str, Any]] = {}

    def judge(self, request: Request) -> Answer:
        name = request.path.removeprefix("/v1/")
        if request.method == "PUT":
            policy = {"expirationPolicy": {"ttl": "2678400s"}} if "/subscriptions/" in name else {}
            self.kept[name] = {"name": name, **policy, **json.loads(request.body)}
        elif request.method == "PATCH":
            self.kept[name] |= json.loads(request.body)["subscription"]
        if name not in self.kept:
            return Answer(404, b'{"error": {"code": 404, "message": "Resource not found"}}')
        return Answer(200, json.dumps(self.kept[name]).encode())


def test_topic_and_subscription_are_made_once_and_differences_are_shown(run: Run) -> None:
    with PubSub() as service:
        flags = ["pubsub", f"--pubsub_topic={TOPIC}", f"--pubsub_endpoint={service.url}"]
        flags.append(f"--subscription={SUBSCRIPTION}")
        assert run(*flags, "--yes=true") == 0, run.err
        assert service.kept[SUBSCRIPTION]["expirationPolicy"] == {}
        assert service.kept[SUBSCRIPTION]["topic"] == TOPIC
        assert "roles/pubsub.publisher" in run.out
        assert run(*flags) == 0  # and nothing is asked
        assert run.lines[-1] == "nothing is to be done"
        service.kept[SUBSCRIPTION]["expirationPolicy"] = {"ttl": "2678400s"}
        assert run(*flags, "--yes=true") == 0
        assert "expirationPolicy: there after 2678400s, ours {}" in run.out
        assert service.kept[SUBSCRIPTION]["expirationPolicy"] == {"ttl": "2678400s"}
        assert run(*flags, "--yes=true", "--overwrite=true") == 0
        assert service.kept[SUBSCRIPTION]["expirationPolicy"] == {}
        service.kept[SUBSCRIPTION]["topic"] = "projects/practice/topics/other"
        assert run(*flags, "--yes=true", "--overwrite=true") == 0
        assert "it belongs to another topic" in run.out


def test_printed_it_is_gclouds_commands(run: Run, tmp_path: Path) -> None:
    flags = ("pubsub", f"--pubsub_topic={TOPIC}", f"--subscription={SUBSCRIPTION}", "--print=true")
    assert run(*flags, f"--into={tmp_path}") == 0
    made = (tmp_path / "pubsub.sh").read_text()
    assert f"gcloud pubsub topics create {TOPIC}\n" in made
    assert "--expiration-period=never" in made
