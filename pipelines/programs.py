"""All programs by name: `grantex-beam [stream] …`, `grantex-beam NAME …`; each is `pipelines.NAME` as well.

Nothing is imported but the one that is asked for: Beam takes two seconds, and not every program needs it.
"""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines import exit_codes

if TYPE_CHECKING:
    from pipelines.flags.parameter import Parameter

# Name and what it does in one line. Each is a module of its name here, with a `main(argv) -> exit code`.
PROGRAMS: Mapping[str, str] = {
    "stream": "The job itself, and what runs when no program is named.",
    "check": "Tries what delivery needs, everywhere at once, before there is an event.",
    "reconcile": "Compares the service's delivery ledger with receipts, or with what a destination has.",
    "provision": "Sets up what the job needs at a service, such as an index, monitors, a table, a bucket.",
    "config": "Says which settings are in force and where each comes from.",
    "replay": "Sends archived events or dead letters to destinations.",
    "where": "Says of event ids when they came, and where each destination has them.",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program that the first argument names (the job when it is a flag); returns the exit code."""
    name, arguments = "stream", list(sys.argv[1:] if argv is None else argv)
    if arguments and not arguments[0].startswith("-"):
        name = arguments.pop(0)
    if name not in PROGRAMS:
        return exit_codes.refuse([_unknown(name)])
    code: int = importlib.import_module(f"pipelines.{name}").main(arguments)
    return code


# Where those are declared that a program has for itself, each as a mapping OWN.
DECLARING = (
    "pipelines.flags.check",
    "pipelines.flags.reconcile",
    "pipelines.flags.provision",
    "pipelines.config",
    "pipelines.flags.replay",
    "pipelines.where",
)


def own_parameters() -> Mapping[str, Parameter]:
    """By name, the parameters that one program or another has for itself: an environment, or a file of
    settings, is often shared by all of them."""
    modules = [importlib.import_module(each) for each in DECLARING]
    return {name: parameter for module in modules for name, parameter in module.OWN.items()}


def _unknown(name: str) -> str:
    """What is wrong and would be right; without `name`, which may be a secret that lost its flag."""
    meant = next(iter(difflib.get_close_matches(name, PROGRAMS, n=1)), "")
    hint = f"did you mean {meant}? " if meant else ""
    return (
        f"argument 1 is no program and no flag; {hint}programs are {', '.join(PROGRAMS)}, and every setting "
        "is --name=value"
    )


if __name__ == "__main__":
    sys.exit(main())
