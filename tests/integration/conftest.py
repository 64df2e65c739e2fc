"""A world of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.job import World, world


@pytest.fixture
def around(tmp_path: Path) -> Iterator[World]:
    """Practice feed, practice HEC, and directories; no job yet."""
    with world(tmp_path, forks=True) as made:
        yield made
