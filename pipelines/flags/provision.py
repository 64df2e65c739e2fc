"""Parameters of `provision`: whether it asks, and which of the job's each of its parts uses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

from pipelines.flags.manual import PACKAGE, program_help
from pipelines.flags.parameter import Group, declared
from pipelines.flags.settings import PARAMETERS, Program
from transforms.setting import setting


@dataclass(frozen=True, kw_only=True)
class ProvisionParameters:
    group: ClassVar[Group] = Group("Provision")

    yes: bool = setting("Do it without asking.", False)
    print: bool = setting("Show what would be done, and do nothing.", False)


ASKING = {each.name: each for each in declared(ProvisionParameters)}
# How a service is reached, for every part.
WAY_OUT = "ca_file client_certificate client_key http_proxy"


def program(name: str, about: str, uses: str, new_secrets: Iterable[str] = ()) -> Program:
    """`provision NAME` with the parameters in `uses`; others of the job's may be given and do nothing.

    new_secrets: those that need not be there yet, as this is to put them there.
    """
    own = {**ASKING, **{each: replace(PARAMETERS[each], secret=False) for each in new_secrets}}

    def help() -> str:
        return program_help(f"provision {name} [--yes=true] [--name=value ...]", about, made.parameters())

    made = Program(
        f"provision {name}",
        own,
        frozenset(f"{uses} {WAY_OUT}".split()),
        help=help,
        needs_destination=False,
        lenient=True,
    )
    return made


def help_of_all(names: Iterable[str]) -> str:
    """For `provision --help`."""
    each = "\n".join(f"  {PACKAGE} provision {name} --help" for name in names)
    return f"provision sets up at a service what the job needs there. What there is:\n{each}"
