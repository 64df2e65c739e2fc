"""What is told about the parameters: help, and the pages that are generated."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.flags import manual
from pipelines.flags.settings import PARAMETERS, parse

ROOT = Path(__file__).parents[3]


def test_help_and_version_end_well(capsys: pytest.CaptureFixture[str]) -> None:
    for flag in ("--help", "-h", "--version"):
        with pytest.raises(SystemExit) as ended:
            parse(["--wrong", flag], {})
        assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "grantex-beam" in printed
    for parameter in PARAMETERS.values():
        assert f"  {parameter.flag} " in printed


def test_argparse_knows_every_parameter() -> None:
    parser = manual.argument_parser(PARAMETERS)
    assert isinstance(parser, argparse.ArgumentParser)
    assert [action.dest for action in parser._actions] == list(PARAMETERS)


@pytest.mark.slow
def test_the_page_of_settings_is_what_the_parameters_make_it() -> None:
    command = [sys.executable, "-m", "pipelines.flags.manual"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    page = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
    assert page == printed, "run `python -m pipelines.flags.manual > docs/settings.md`"
    for parameter in PARAMETERS.values():
        assert page.count(f"| `{parameter.flag}` ") == 1
