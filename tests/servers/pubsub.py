"""Google's own fake of Pub/Sub (pstest, from its Go library) on loopback, built once from Go's module proxy.

Its modules are pinned and hashed in pubsub_server/go.sum.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.pubsub_v1.types import pubsub

from tests.servers.process import (
    ServerProcess,
    cache_directory,
    fetch,
    free_port,
    install_once,
    listens,
    unavailable,
)

SOURCE = Path(__file__).parent / "pubsub_server"
BUILD_SECONDS = 600.0  # a minute of two idle cores
PROJECT = "my-project"


@dataclass(frozen=True)
class PubSubServer:
    """A running server, and a client that knows nothing of the job's."""

    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def topic(self, name: str) -> str:
        """A new topic with a subscription of the same name; returns its full name."""
        path = f"projects/{PROJECT}/topics/{name}"
        subscription = f"projects/{PROJECT}/subscriptions/{name}"
        self._call("Publisher/CreateTopic", pubsub.Topic(name=path), pubsub.Topic)
        wanted = pubsub.Subscription(name=subscription, topic=path, ack_deadline_seconds=60)
        self._call("Subscriber/CreateSubscription", wanted, pubsub.Subscription)
        return path

    def messages(self, name: str) -> list[Any]:
        """Every message of the subscription that was not read before."""
        subscription = f"projects/{PROJECT}/subscriptions/{name}"
        found: list[Any] = []
        while True:
            asked = pubsub.PullRequest(subscription=subscription, max_messages=1000, return_immediately=True)
            received = self._call("Subscriber/Pull", asked, pubsub.PullResponse).received_messages
            if not received:
                return found
            found += [each.message for each in received]
            ids = [each.ack_id for each in received]
            done = pubsub.AcknowledgeRequest(subscription=subscription, ack_ids=ids)
            self._call("Subscriber/Acknowledge", done, pubsub.Subscription)

    def _call(self, method: str, request: Any, answer: Any) -> Any:
        any_size = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{self.port}", options=any_size) as channel:
            call = channel.unary_unary(
                f"/google.pubsub.v1.{method}", type(request).serialize, answer.deserialize
            )
            return call(request, timeout=10)


@contextlib.contextmanager
def running(log: Path, port: int = 0) -> Iterator[PubSubServer]:
    """An empty one until the end of the block. Skips the test when it cannot be built."""
    port = port or free_port()
    with ServerProcess([str(program()), str(port)], log) as process:
        process.wait_until(lambda: listens(port), "pstest")
        yield PubSubServer(port)


def program() -> Path:
    """The built program. Skips the test, or fails it under CI, when it cannot be had."""
    digest = hashlib.sha256(b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.sum")))
    directory = cache_directory(f"pubsub-{digest.hexdigest()[:12]}")
    with install_once(directory) as missing:
        if missing:
            _build(directory)
    return directory / "pubsub_server"


def _build(directory: Path) -> None:
    if shutil.which("go") is None:
        unavailable("Pub/Sub's fake is built from source: it needs Go (https://go.dev/doc/install)")
    with tempfile.TemporaryDirectory(dir=directory) as work:
        paths = {"GOPATH": f"{work}/go", "GOCACHE": f"{work}/cache", "GOFLAGS": "-mod=readonly -modcacherw"}
        command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", str(directory / "pubsub_server"), "."]
        env = {**os.environ, **paths}
        fetch(command, "Pub/Sub's fake cannot be built here", BUILD_SECONDS, cwd=SOURCE, env=env)
