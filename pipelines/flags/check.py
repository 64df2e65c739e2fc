"""Parameters of `check`: the job's own, and how it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pipelines.flags.manual import program_help
from pipelines.flags.parameter import Group, Parameter, declared
from pipelines.flags.settings import Program
from transforms.setting import setting

ABOUT = """
Tries what delivery needs before there is an event: the API key, the plan behind it and its webhooks, each
secret, the state directory, and for each destination its address, its credential and the right to write
where events are to go. All at once, in at most 20 seconds. It takes the job's own flags, environment and
--config, and says for each thing what was found and what to do. What it leaves behind it names: one small
object in a bucket, one event in Splunk's index. While the job runs it may be asked as well. Exit code 0:
all is well, warnings aside; 3: something does not work, or it could not be told; 2: wrong parameters.
"""


@dataclass(frozen=True, kw_only=True)
class CheckParameters:
    group: ClassVar[Group] = Group("Check")

    json: bool = setting("Print one JSON object in the place of the table.", False)


OWN: dict[str, Parameter] = {each.name: each for each in declared(CheckParameters)}


def help_text() -> str:
    """For `--help`: what it does, and the flags; those of the job mean here what they mean there."""
    return program_help("check [--json=true] [the job's own flags]", ABOUT, PROGRAM.parameters())


PROGRAM = Program("check", OWN, help=help_text, needs_destination=False)
