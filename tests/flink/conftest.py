"""A world of its own for each test on Flink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flink.world import World, world


@pytest.fixture
def around(tmp_path: Path) -> Iterator[World]:
    """A cluster, practice feed and destinations; no job yet."""
    with world(tmp_path) as made:
        yield made
