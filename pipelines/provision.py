"""provision: sets up at a service what the job needs there; shown first, and done when somebody says yes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from pipelines import exit_codes
from pipelines.flags.provision import help_of_all
from pipelines.flags.settings import BadParameters, parse
from pipelines.plan import CannotProvision, Plan
from transforms.secret import SecretError, redact

# What can be provisioned, and the module that has its PROGRAM (which flags) and `plan` (settings -> Plan).
PROVISIONS: Mapping[str, str] = {"feed": "pipelines.provision_feed"}


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
    module = importlib.import_module(PROVISIONS[name])
    try:
        settings = parse(arguments, os.environ, module.PROGRAM)
        settings.way_out.lend(os.environ)
        for line in settings.warnings:
            print(line, file=sys.stderr)
        return _carry_out(module.plan(settings), settings["yes"], settings["print"], ask)
    except BadParameters as error:
        return exit_codes.refuse(error.lines)
    except (CannotProvision, SecretError) as error:
        print(redact(str(error)), file=sys.stderr)
        is_bad = isinstance(error, CannotProvision) and error.bad
        return exit_codes.BAD_PARAMETERS if is_bad else exit_codes.FAILED


def _carry_out(plan: Plan, yes: bool, only_show: bool, ask: Callable[[str], str]) -> int:
    for line in plan.lines:
        print(redact(line))
    if plan.act is None or only_show:
        return exit_codes.DRAINED
    if not yes:
        try:
            said = ask("Do it? [y/N] ")
        except EOFError:
            raise CannotProvision(
                "--yes=true: is needed where nobody can be asked; nothing was done", True
            ) from None
        if said.strip().lower() not in ("y", "yes"):
            print("nothing was done")
            return exit_codes.FAILED
    for line in plan.act():
        print(redact(line), flush=True)
    return exit_codes.DRAINED


if __name__ == "__main__":
    sys.exit(main())
