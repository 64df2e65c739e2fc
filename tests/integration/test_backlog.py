"""The program behind `make backlog-test`, with some MB in place of gigabytes."""

from __future__ import annotations

from pathlib import Path

from tests.integration import backlog


def test_whatever_waits_no_element_and_no_commit_is_too_large(tmp_path: Path) -> None:
    said: list[str] = []
    assert backlog.run(80_000_000, tmp_path, said.append) == []
    assert len(said) == 4
