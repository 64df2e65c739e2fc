"""What is told about the parameters: `--help`, `--version`, and docs/settings.md with its table.

python -m pipelines.flags.manual > docs/settings.md
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Mapping
from importlib import metadata
from itertools import groupby

from pipelines.flags.parameter import Parameter
from pipelines.programs import PROGRAMS

PACKAGE = "grantex-beam"
USAGE = (
    "Each flag is also read from the environment as GRANTEX_<FLAG>, flags win. A destination is on when its "
    "first flag is given. Beam's own flags are passed on to Beam. A SECRET is a reference: `env:NAME`, "
    "`file:PATH`, `secret:projects/P/secrets/S[/versions/V]` (Google Secret Manager) or "
    "`aws-secret:NAME[#KEY]`; anything else is taken as the value itself, for one machine only."
)

EPILOG = USAGE.replace("`", "")


def version() -> str:
    """The installed version, for `--version`."""
    try:
        return f"{PACKAGE} {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return f"{PACKAGE} (run from its source, not installed)"


def help_text(parameters: Mapping[str, Parameter]) -> str:
    """All parameters by group, for `--help`, and the other programs."""
    programs = "\n".join(f"  {name:<12}{what}" for name, what in PROGRAMS.items())
    tells = f"programs ({PACKAGE} PROGRAM --help tells more):\n{programs}\n"
    return f"{argument_parser(parameters).format_help()}\n{tells}"


def argument_parser(parameters: Mapping[str, Parameter]) -> argparse.ArgumentParser:
    """argparse's view of the parameters. Its help is used; parsing is ours, to report all faults at once."""
    return _parser(f"{PACKAGE} [PROGRAM] [--demo=true] [--name=value ...]", None, parameters, EPILOG)


def program_help(usage: str, about: str, parameters: Mapping[str, Parameter], epilog: str = EPILOG) -> str:
    """For `--help` of a program: its usage, what it does, then its parameters."""
    return _parser(f"{PACKAGE} {usage}", textwrap.dedent(about), parameters, epilog).format_help()


def _parser(
    usage: str, about: str | None, parameters: Mapping[str, Parameter], epilog: str
) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PACKAGE, usage=usage, description=about, epilog=epilog, add_help=False, allow_abbrev=False
    )
    for title, members in groupby(parameters.values(), key=lambda each: each.group.title):
        group = parser.add_argument_group(title)
        for each in members:
            text = f"{each.help} ({_facts(each)})" if _facts(each) else each.help
            group.add_argument(each.flag, metavar=each.placeholder, help=text.replace("%", "%%"))
    return parser


def _facts(parameter: Parameter) -> str:
    if parameter.required:
        return f"needed, for example {parameter.example}"
    if parameter.default_in_words:
        return f"default {parameter.default_in_words}"
    return "repeatable" if parameter.repeatable else ""


def markdown(parameters: Mapping[str, Parameter]) -> str:
    """The table of all parameters, one section a group."""
    lines = [*textwrap.wrap(USAGE, 110, break_on_hyphens=False)]
    for title, members in groupby(parameters.values(), key=lambda each: each.group.title):
        lines += ["", f"**{title}**", "", "| flag | meaning | default |", "|---|---|---|"]
        lines += [_row(each) for each in members]
    return "\n".join(lines) + "\n"


def page(parameters: Mapping[str, Parameter]) -> str:
    """docs/settings.md."""
    return f"# Settings\n\n{markdown(parameters)}"


def _row(parameter: Parameter) -> str:
    values = parameter.placeholder.replace("|", " · ")
    default = f"`{parameter.default_in_words}`" if parameter.default_in_words else ""
    if parameter.required:
        default = "needed"
    elif parameter.group.first == parameter.name:
        default = "off"
    help = parameter.help + (" May be repeated." if parameter.repeatable else "")
    return f"| `{parameter.flag}` {values} | {help} | {default} |"


if __name__ == "__main__":
    from pipelines.flags.settings import PARAMETERS

    sys.stdout.write(page(PARAMETERS))
