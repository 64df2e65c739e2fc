"""A launch of the template as Dataflow's launcher makes it, on loopback, and what can be read in its job."""

from __future__ import annotations

import base64
import binascii
import bz2
import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apache_beam.internal import pickler
from apache_beam.portability.api import beam_runner_api_pb2

from tests.servers.dataflow import Dataflow, service_account
from tests.servers.gcs import GoogleStorage

ROOT = Path(__file__).parents[2]
GUARD = Path(__file__).parent / "loopback_only"
IMAGE = "europe-west1-docker.pkg.dev/my-project/grantex/grantex-beam:1.2.3"
BUCKET = "my-bucket"
JOB_OBJECT = "staging/template_launches/2026-01-01_00_00_00-1/job_object"


def install(place: Path) -> Path:
    """The package as the image has it, and main.py beside it; the source tree is not touched."""
    source, site, template = place / "source", place / "site", place / "template"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, source)
    for name in ("pipelines", "transforms"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-build-isolation", "--no-index", "--target", str(site), str(source)]
    subprocess.run(command, check=True, timeout=120)
    template.mkdir()
    shutil.copy(ROOT / "templates" / "main.py", template)
    shutil.rmtree(source)
    return place


@dataclass(frozen=True)
class Launcher:
    """The launcher's machine: the image's environment, an account, and no network but loopback."""

    image: Path
    storage: GoogleStorage
    dataflow: Dataflow
    place: Path

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        path = [str(GUARD), str(self.image / "site"), str(ROOT)]  # the last one for a destination of a test's
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place),
            "PYTHONPATH": os.pathsep.join(path),
            "LOOPBACK_ONLY": str(self.place / "asked-elsewhere"),
            "STORAGE_EMULATOR_HOST": self.storage.endpoint,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.place / "account.json"),
            "NO_GCE_CHECK": "true",
            # As templates/Dockerfile has them.
            "WORKER_IMAGE": IMAGE,
            "GRANTEX_RUNNER": "DataflowRunner",
            **more,
        }

    def private_key(self) -> str:
        """Of the account it runs as, made anew."""
        return service_account(self.place / "account.json", self.dataflow.token_uri)

    def run(self, argv: Sequence[str], **environ: str) -> subprocess.CompletedProcess[str]:
        """Run main.py to its end."""
        return subprocess.run(
            [sys.executable, str(self.image / "template" / "main.py"), *argv],
            cwd=self.image / "template",
            env=self.environment(environ),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def asked_elsewhere(self) -> str:
        """What it asked of the internet, refused as it was."""
        notes = self.place / "asked-elsewhere"
        return notes.read_text() if notes.exists() else ""


def launcher_arguments(parameters: Mapping[str, str], environment: Mapping[str, str]) -> list[str]:
    """The command line for a launch with these parameters: each is one argument, whatever is in it; what is
    empty is left out."""
    own = {
        "project": "my-project",
        "region": "europe-west1",
        "job_name": "grantex-1",
        "staging_location": f"gs://{BUCKET}/staging",
        "temp_location": f"gs://{BUCKET}/temp",
        "template_location": f"gs://{BUCKET}/{JOB_OBJECT}",
        **environment,
    }
    return [f"--{name}={value}" for name, value in {**parameters, **own}.items() if value]


def pipeline_of(objects: Mapping[str, bytes]) -> beam_runner_api_pb2.Pipeline:
    """The graph that was staged."""
    [content] = [content for name, content in objects.items() if name.endswith("/pipeline.pb")]
    return beam_runner_api_pb2.Pipeline.FromString(content)


# Beam writes pickles as base64 of bz2 (or zlib, or nothing); what is inside may again hold some.
BASE64 = re.compile(rb"[A-Za-z0-9+/]{40,}={0,2}")


def decoded(content: bytes, depth: int = 4) -> Iterator[bytes]:
    """`content`, and everything that is packed in it."""
    yield content
    if depth == 0:
        return
    for found in BASE64.finditer(content):
        text = found[0]
        for start in range(4):  # a protobuf's length may look like a part of it
            with_padding = text[start:] + b"=" * (-len(text[start:]) % 4)
            try:
                raw = base64.b64decode(with_padding)
            except binascii.Error:
                continue
            yield from (each for unpacked in _unpacked(raw) for each in decoded(unpacked, depth - 1))


def _unpacked(raw: bytes) -> Iterator[bytes]:
    yield raw
    for unpack in (bz2.decompress, zlib.decompress):
        with contextlib.suppress(OSError, ValueError, zlib.error):
            yield unpack(raw)


def do_fns(pipeline: beam_runner_api_pb2.Pipeline) -> dict[str, Any]:
    """The DoFns of all ParDos, unpickled, by the names of their transforms."""
    found = {}
    for transform in pipeline.components.transforms.values():
        if transform.spec.urn != "beam:transform:pardo:v1":
            continue
        payload = beam_runner_api_pb2.ParDoPayload.FromString(transform.spec.payload)
        found[transform.unique_name] = pickler.loads(payload.do_fn.payload)[0]
    return found


def parts(value: Any, seen: set[int] | None = None) -> Iterator[Any]:
    """`value` and everything that it is made of: fields, attributes, items."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type):
        return
    seen.add(id(value))
    yield value
    inside: list[Any] = []
    if isinstance(value, Mapping):
        inside = [*value.keys(), *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        inside = list(value)
    elif dataclasses.is_dataclass(value):
        inside = [getattr(value, each.name) for each in dataclasses.fields(value)]
    elif hasattr(value, "__dict__"):
        inside = list(vars(value).values())
    for each in inside:
        yield from parts(each, seen)
