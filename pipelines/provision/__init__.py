"""provision: sets up at a service what the job needs there; shown first, and done when somebody says yes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pipelines import exit_codes
from pipelines.flags.provision import help_of_all
from pipelines.flags.settings import BadParameters, parse
from pipelines.provision.plan import CannotProvision, Plan
from transforms.secret import SecretError, redact

# What can be provisioned, each by the module of its name here: its PROGRAM says which flags, `plan` makes a
# Plan of settings, and `files` (of a destination) what somebody else can carry out: text by file name.
PROVISIONS: Sequence[str] = ("feed", "splunk", "datadog", "bigquery", "s3", "gcs", "kafka", "pubsub")


def main(argv: Sequence[str] | None = None, ask: Callable[[str], str] = input) -> int:
    """Provision what the first argument names; returns the exit code. ask: puts a question to a person."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
    if not name and {"--help", "-h"} & set(arguments):
        print(help_of_all(PROVISIONS))
        return exit_codes.DRAINED
    if name not in PROVISIONS:
        what = ", ".join(PROVISIONS)
        line = f"argument 1 says what is to be provisioned: {what}; and every setting is --name=value"
        return exit_codes.refuse([line])
    module = importlib.import_module(f"pipelines.provision.{name}")
    try:
        settings = parse(arguments, os.environ, module.PROGRAM)
        settings.way_out.lend(os.environ)
        for line in settings.warnings:
            print(line, file=sys.stderr)
        if settings["print"] and hasattr(module, "files"):
            return _hand_over(module.files(settings), settings["into"])
        return _carry_out(module.plan(settings), settings["yes"], settings["print"], ask)
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    except (CannotProvision, SecretError) as error:
        print(redact(str(error)), file=sys.stderr)
        is_bad = isinstance(error, CannotProvision) and error.bad
        return exit_codes.BAD_PARAMETERS if is_bad else exit_codes.FAILED


def _carry_out(plan: Plan, yes: bool, only_show: bool, ask: Callable[[str], str]) -> int:
    for line in plan.lines:
        print(redact(line))
    if plan.act is None or only_show:
        return exit_codes.DRAINED
    if not _agreed(plan, yes, ask):
        print("nothing was done")
        return exit_codes.FAILED
    for line in plan.act():
        print(redact(line), flush=True)
    return exit_codes.DRAINED


def _agreed(plan: Plan, yes: bool, ask: Callable[[str], str]) -> bool:
    """Whether somebody wants it; asked twice for what is for ever. Raises CannotProvision."""
    flag = "--yes=true"
    try:
        if not yes and ask("Do it? [y/N] ").strip().lower() not in ("y", "yes"):
            return False
        if plan.certainty is None:
            return True
        flag = plan.certainty.flag
        if yes:
            raise EOFError
        return ask(f"{plan.certainty.question} ").strip() == plan.certainty.answer
    except EOFError:
        raise CannotProvision(
            f"{flag}: is needed where nobody can be asked; nothing was done", bad=True
        ) from None


def _hand_over(files: Mapping[str, str], into: Path | None) -> int:
    """Print files, or write them into a directory. Raises CannotProvision."""
    for name, text in files.items():
        if into is None:
            print(f"==> {name} <==\n{redact(text)}")
            continue
        path = into / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(redact(text), encoding="utf-8")
        except OSError as error:
            raise CannotProvision(f"--into: {path}: {error.strerror}", bad=True) from None
        print(path)
    return exit_codes.DRAINED
