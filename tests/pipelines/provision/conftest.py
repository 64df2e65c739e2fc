"""`provision` run as a person would, and what it said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pipelines import provision


def never(question: str) -> str:
    raise AssertionError(f"it asked: {question}")


class Run:
    """Runs `provision`; `out` and `err` are what it said last."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str, ask: Callable[[str], str] = never) -> int:
        code = provision.main(list(arguments), ask)
        self.out, self.err = self._capsys.readouterr()
        return code

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


class Provisioning:
    """`provision` of one part, with what its runs have in common; what it said is that of its `run`."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def out(self) -> str:
        return self.run.out

    @property
    def err(self) -> str:
        return self.run.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return Run(capsys)
