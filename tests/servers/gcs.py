"""Google Cloud Storage's JSON API on loopback: gcp-storage-emulator from its wheel, in memory."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from tests.servers.process import ServerProcess, cache_directory, free_port, listens, pip_install

VERSION = "2026.7.19"
# Its one requirement, google-crc32c, comes with Beam.
REQUIREMENT = (
    f"gcp-storage-emulator=={VERSION}"
    " --hash=sha256:b60145057fdfa7751259f68758c3a1df919f4bf6fad21dd2fa2559b3f6273241\n"
)


@dataclass(frozen=True)
class GoogleStorage:
    """A running server; `endpoint` is what STORAGE_EMULATOR_HOST takes."""

    endpoint: str

    def create_bucket(self, name: str) -> None:
        httpx.post(f"{self.endpoint}/storage/v1/b", json={"name": name}).raise_for_status()

    def put(self, bucket: str, name: str, body: bytes) -> None:
        """One object, whether or not there is one."""
        url = f"{self.endpoint}/upload/storage/v1/b/{bucket}/o"
        httpx.post(url, params={"uploadType": "media", "name": name}, content=body).raise_for_status()

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in `bucket`, by name."""
        listed: dict[str, Any] = (
            httpx.get(f"{self.endpoint}/storage/v1/b/{bucket}/o").raise_for_status().json()
        )
        names = [one["name"] for one in listed.get("items", ())]
        return {name: self._read(bucket, name) for name in names}

    def _read(self, bucket: str, name: str) -> bytes:
        url = f"{self.endpoint}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
        return httpx.get(url).raise_for_status().content


@contextlib.contextmanager
def running(log: Path) -> Iterator[GoogleStorage]:
    """An empty one until the end of the block. Skips the test when the program cannot be had."""
    programs = cache_directory(f"gcp-storage-emulator-{VERSION}")
    pip_install(programs, REQUIREMENT)
    port = free_port()
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host=127.0.0.1", f"--port={port}"]
    path = os.pathsep.join([str(programs), os.environ.get("PYTHONPATH", "")])
    with ServerProcess([*command, "--in-memory"], log, env={"PYTHONPATH": path}) as process:
        process.wait_until(lambda: listens(port), "gcp-storage-emulator")
        yield GoogleStorage(f"http://127.0.0.1:{port}")
