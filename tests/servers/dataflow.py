"""What Dataflow's REST API is to whoever submits a job: it takes the job and calls it pending.

Beside it Google's token service, for a service account of its own: nothing else is asked of the network.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

TOKEN = "ya29.of-nobody-at-all"
JOB_ID = "2026-01-01_00_00_00-1234567890"


class Dataflow:
    """A running service. `jobs` are the requests that created one, as they came."""

    def __init__(self, port: int) -> None:
        # Beam speaks REST, and not gRPC, to an endpoint with `localhost` in it.
        self.endpoint = f"http://localhost:{port}"
        self.token_uri = f"http://127.0.0.1:{port}/token"
        self.jobs: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.tokens = 0

    def answer(self, method: str, path: str, body: bytes, authorization: str) -> tuple[int, dict[str, Any]]:
        """Status and JSON; says no to whoever has no token."""
        if path == "/token":
            self.tokens += 1
            return 200, {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        self.asked.append(f"{method} {path.partition('?')[0]}")
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": {"code": 401, "status": "UNAUTHENTICATED", "message": "no token"}}
        if method == "POST" and path.partition("?")[0].endswith("/jobs"):
            job = json.loads(body)
            self.jobs.append(job)
            return 200, {**job, "id": JOB_ID, "currentState": "JOB_STATE_PENDING"}
        return 404, {"error": {"code": 404, "status": "NOT_FOUND", "message": path}}


@contextlib.contextmanager
def running() -> Iterator[Dataflow]:
    """Until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self._do("POST")

        def do_GET(self) -> None:
            self._do("GET")

        def _do(self, method: str) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, answer = service.answer(method, self.path, body, self.headers.get("authorization", ""))
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service = Dataflow(server.server_port)
    threading.Thread(target=server.serve_forever, name="dataflow", daemon=True).start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()


def service_account(file: Path, token_uri: str) -> str:
    """Write a key file for GOOGLE_APPLICATION_CREDENTIALS; returns the private key in it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {
        "type": "service_account",
        "project_id": "my-project",
        "private_key_id": "1",
        "private_key": pem,
        "client_email": "launcher@my-project.iam.gserviceaccount.com",
        "client_id": "1",
        "token_uri": token_uri,
    }
    file.write_text(json.dumps(account))
    return pem
