"""A real outgoing proxy (proxy.py from PyPI) that notes whom it was asked for, and knows where *.test is.

Names under .test have no address elsewhere: who reaches one went through this proxy. It takes them to
127.0.0.1.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.http.proxy import HttpProxyBasePlugin

from tests.servers.authority import Authority
from tests.servers.process import ServerProcess, listens

NOTES = "OUTGOING_PROXY_NOTES"  # in the environment of the proxy's process: the file to note requests in


class Noting(HttpProxyBasePlugin):  # type: ignore[misc]
    """proxy.py loads it in its own process."""

    def before_upstream_connection(self, request: Any) -> Any:
        """One line a connection: CONNECT host:port, or POST host:port."""
        with Path(os.environ[NOTES]).open("a") as notes:
            notes.write(f"{request.method.decode()} {request.host.decode().strip('[]')}:{request.port}\n")
        return request

    def resolve_dns(self, host: str, port: int) -> tuple[str | None, None]:
        """*.test is here; all others are where they are."""
        return ("127.0.0.1" if host.rstrip(".").endswith(".test") else None), None


@dataclass(frozen=True)
class OutgoingProxy:
    """A running one. `log` is all that it said; it must hold no credentials."""

    port: int
    notes: Path
    log: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def is_in_use(self) -> bool:
        """Whether a client is connected to it."""
        table = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
        open_now = {"01", "08"}  # ESTABLISHED, CLOSE_WAIT: what it has not read to the end
        return any(line[1].endswith(f":{self.port:04X}") and line[3] in open_now for line in table)

    @property
    def asked(self) -> list[str]:
        """What it was asked for, one entry a connection: "CONNECT splunk.test:8088"."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []


@contextlib.contextmanager
def outgoing_proxy(
    folder: Path, *, login: str = "", intercepts: Authority | None = None, trusts: Path | None = None
) -> Iterator[OutgoingProxy]:
    """A proxy on loopback for as long as the block lasts.

    login: "user:password" that it asks for. intercepts: reads what passes, with certificates of this
    authority, and believes the services whose authority is in `trusts`.
    """
    folder.mkdir(exist_ok=True)
    ports, notes, log = folder / "port", folder / "notes", folder / "log"
    command = [sys.executable, "-m", "proxy", "--hostname", "127.0.0.1", "--port", "0", "--num-workers", "1"]
    command += ["--num-acceptors", "1", "--port-file", str(ports), "--plugins", f"{__name__}.Noting"]
    command += ["--timeout", "60"]
    if login:
        command += ["--basic-auth", login]
    if intercepts is not None:
        command += ["--ca-cert-file", str(intercepts.file), "--ca-key-file", str(intercepts.key_file)]
        command += ["--ca-signing-key-file", str(intercepts.key_file), "--ca-cert-dir", str(folder)]
        command += ["--ca-file", str(trusts)]
    root = str(Path(__file__).parents[2])
    process = ServerProcess(command, log, env={NOTES: str(notes), "PYTHONPATH": root})
    try:
        process.wait_until(lambda: ports.exists() and ports.read_text().strip() != "", "the proxy")
        port = int(ports.read_text())
        process.wait_until(lambda: listens(port), "the proxy")
        yield OutgoingProxy(port, notes, log)
    finally:
        process.stop()
