"""A world of its own for each test on Flink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flink.world import World, world
from tests.servers.seaweedfs import SeaweedFS


@pytest.fixture
def around(tmp_path: Path) -> Iterator[World]:
    """A cluster, practice feed and destinations; no job yet."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def with_store(tmp_path: Path, seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """One whose dead letters go to a real S3, which the workers find by their environment: Beam's options,
    such as --s3_endpoint_url, do not reach a worker of a pool without containers."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", seaweedfs.endpoint)
    with world(tmp_path) as made:
        made.letters = "s3://flink/dead_letters"
        yield made
