"""A gRPC channel to one of Google's services, or to what speaks its protocol somewhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import grpc  # type: ignore[import-untyped]

from transforms.write.over_http.connection import user_agent

OPTIONS = [
    ("grpc.enable_retries", 0),  # the outbox does that
    # Writers are closed one by one, each with its own connection.
    ("grpc.use_local_subchannel_pool", 1),
    # gRPC's own back-off goes up to 2 minutes, in which it fails calls without trying.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.primary_user_agent", user_agent()),
]


def channel(endpoint: str, ca_file: str | None = None) -> Any:
    """A channel to the service at `endpoint`, a URL; http:// is unencrypted, for emulators.

    ca_file: PEM file of an authority to trust beside the usual ones. Raises OSError when it cannot be read.
    """
    parts = urlsplit(endpoint)
    secure = parts.scheme != "http"
    target = parts.netloc if parts.port else f"{parts.netloc}:{443 if secure else 80}"
    if not secure:
        return grpc.insecure_channel(target, options=OPTIONS)
    roots = None
    if ca_file is not None:
        roots = Path(certifi.where()).read_bytes() + b"\n" + Path(ca_file).read_bytes()
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots), options=OPTIONS)
