"""config: which settings are in force and where each comes from; the schema of their file; completion."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipelines import exit_codes
from pipelines.flags import completion, config_schema, custom
from pipelines.flags.command_line import Arrived
from pipelines.flags.manual import program_help
from pipelines.flags.parameter import Group, Parameter, declared
from pipelines.flags.settings import PARAMETERS, BadParameters, Program, arrived, checked
from transforms.secret import LiteralSecret, SecretError, parse_secret
from transforms.setting import setting
from transforms.write.kafka import config as kafka_config


@dataclass(frozen=True, kw_only=True)
class ConfigParameters:
    group: ClassVar[Group] = Group("Config")

    print: bool = setting(
        "Print what is in force, as a file for --config, with where each value is from.", True
    )
    schema: bool = setting("Print the JSON Schema of --config's file, for an editor.", False)
    completion: str = setting(
        "Print what a shell completes flags with.", "", choices=tuple(completion.SHELLS)
    )


OWN: Mapping[str, Parameter] = {each.name: each for each in declared(ConfigParameters)}


def help_text() -> str:
    """For `--help`."""
    usage = "config [--print=true | --schema=true | --completion=SHELL] [the job's own flags]"
    about = "Checks settings as the job would, and starts nothing. Exit code 2: they are wrong."
    return program_help(usage, about, OWN, epilog="")


PROGRAM = Program("config", OWN, help=help_text)


def main(argv: Sequence[str] | None = None) -> int:
    """Print with these arguments (the process's own by default); returns the exit code."""
    given = arrived(sys.argv[1:] if argv is None else argv, os.environ, PROGRAM)
    if _switch(given, "schema"):
        print(config_schema.text(config_schema.schema()), end="")
        return exit_codes.DRAINED
    if (shell := given.given.get("completion")) and shell[0][1] in completion.SHELLS:
        print(completion.SHELLS[shell[0][1]](PARAMETERS), end="")
        return exit_codes.DRAINED
    try:
        settings = checked(given, os.environ, PROGRAM)
    except BadParameters as error:
        return exit_codes.refuse(error.lines, error.code)
    for line in settings.warnings:
        print(line, file=sys.stderr)
    if settings["print"]:
        print("\n".join(in_force(given)))
    return exit_codes.DRAINED


def _switch(given: Arrived, name: str) -> bool:
    """Whether a switch is on, before anything else is read, which may be missing."""
    return any(text.lower() == "true" for _, text in given.given.get(name, ()))


def in_force(given: Arrived) -> Iterator[str]:
    """A file for --config that says the same: each value, and behind it where it is from."""
    for name, parameter in PARAMETERS.items():
        group = parameter.group
        if name in ("config", "custom_destination") or (group.first and group.first not in given.given):
            continue
        if texts := given.given.get(name):
            yield from _lines(name, parameter.secret, texts, "")
        elif parameter.default_in_words and not parameter.default_text:
            yield f"{name}: {quoted(parameter.default_in_words)}  # default"
    if given.config.own:
        yield "destinations:"
    for own in given.config.own:
        yield f"  {own.name}:  # {_place(own.source)}"
        yield f"    kind: {own.path}"
        known = custom.keys_of(own.kind, own.path)
        for key, texts in own.texts.items():
            yield from _lines(key, known[key].secret, texts, "    ")
    for source, _ in given.given.get("custom_destination", ()):
        yield f"# and a destination by {source}"


def _lines(name: str, secret: bool, given: Sequence[tuple[str, str]], indent: str) -> Iterator[str]:
    values = [(_place(source), quoted(_shown(text) if secret else text)) for source, text in given]
    if len(values) == 1:
        yield f"{indent}{name}: {values[0][1]}  # {values[0][0]}"
        return
    yield f"{indent}{name}:"
    for place, value in values:
        yield f"{indent}  - {value}  # {place}"


def _place(source: str) -> str:
    """ "grantex.yaml:3" of "grantex.yaml:3: window_size"; a flag or a variable as it is."""
    return source.partition(": ")[0]


def _shown(text: str) -> str:
    """A reference as it was written, nothing of a secret itself."""
    key, equals, value = text.partition("=")
    if equals and re.fullmatch(r"[a-z.]+", key):  # a pair of Kafka's configuration
        return f"{key}={_shown(value)}" if kafka_config.SENSITIVE.search(key) else text
    try:
        return "[secret]" if isinstance(parse_secret(text), LiteralSecret) else text
    except SecretError:
        return "[secret]"


def quoted(text: str) -> str:
    """A scalar of YAML."""
    plain = re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./+-]*(:[A-Za-z0-9_./+-]+)*", text)
    return text if plain else json.dumps(text, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main())
