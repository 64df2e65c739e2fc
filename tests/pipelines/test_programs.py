"""One command for all programs: which one runs, and what is said of one that is none."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipelines import programs
from pipelines.flags import manual
from pipelines.flags.settings import PARAMETERS
from pipelines.provision import PROVISIONS

ROOT = Path(__file__).parents[2]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Sequence[str]]]:
    """What was called instead of the programs themselves."""
    calls: list[tuple[str, Sequence[str]]] = []

    def program(module: str) -> SimpleNamespace:
        def main(argv: Sequence[str]) -> int:
            calls.append((module, argv))
            return 7

        return SimpleNamespace(main=main)

    monkeypatch.setattr("importlib.import_module", program)
    return calls


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--demo=true"], ("pipelines.stream", ["--demo=true"])),
        ([], ("pipelines.stream", [])),
        (["stream", "--demo=true"], ("pipelines.stream", ["--demo=true"])),
    ],
)
def test_the_first_word_names_the_program_and_the_job_needs_none(
    argv: list[str], expected: tuple[str, list[str]], called: list[tuple[str, Sequence[str]]]
) -> None:
    assert programs.main(argv) == 7
    assert called == [expected]


def test_an_unknown_program_is_a_bad_parameter_and_not_echoed(
    called: list[tuple[str, Sequence[str]]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert programs.main(["hunter2-secret"]) == 2
    said = capsys.readouterr().err
    assert "programs are stream" in said
    assert "hunter2" not in said
    assert programs.main(["straem"]) == 2
    assert "did you mean stream?" in capsys.readouterr().err
    assert called == []


@pytest.mark.parametrize("name", programs.PROGRAMS)
def test_each_program_is_a_module_with_a_main(name: str) -> None:
    package = ROOT / "pipelines" / name
    assert not package.is_dir() or (package / "__main__.py").is_file()  # python -m pipelines.NAME
    path = package / "__init__.py" if package.is_dir() else package.with_suffix(".py")
    module = ast.parse(path.read_text())
    assert "main" in [node.name for node in module.body if isinstance(node, ast.FunctionDef)]


def test_what_programs_have_for_themselves_is_known_to_all_of_them() -> None:
    known = programs.own_parameters()
    parts = [f"pipelines.provision.{part}" for part in PROVISIONS]
    flags = [f"pipelines.flags.{name}" for name in ("check", "reconcile", "replay")]
    for module in (*flags, *parts, "pipelines.config", "pipelines.where"):
        own = importlib.import_module(module).PROGRAM.own
        assert own.keys() - PARAMETERS.keys() <= known.keys(), module
        for name in own.keys() & known.keys():
            assert (known[name].variable, known[name].secret) == (own[name].variable, own[name].secret)


def test_help_names_every_program() -> None:
    text = manual.help_text(PARAMETERS)
    for name, what in programs.PROGRAMS.items():
        assert f"\n  {name} " in text
        assert what[:20] in text


@pytest.mark.slow
def test_the_command_is_the_table_and_imports_nothing_of_beam() -> None:
    assert "grantex-beam = pipelines.programs:main" in (ROOT / "setup.py").read_text()
    ask = "import sys, pipelines.programs; print('apache_beam' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", ask], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
