"""Arguments and environment, sorted into ours, Beam's and nobody's; values are not read here."""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipelines.cluster import flink
from pipelines.flags.config import Config
from pipelines.flags.parameter import PREFIX, Parameter, did_you_mean, is_plain, normal

# What Kubernetes sets in every pod for a Service named grantex or grantex-SOMETHING ("Service: Discovering
# services" in its documentation): their prefix is ours as well. PORT by itself may end one of our own names
# (GRANTEX_STATUS_PORT), so there the value tells.
_LINK = re.compile(
    rf"{PREFIX}([A-Z0-9_]+_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_LINK_PORT = re.compile(rf"{PREFIX}([A-Z0-9_]+_)?PORT")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://\S+:[0-9]+")
# What people look for that is not there, and what there is.
_THE_FILE = (
    "--config=FILE reads settings from a YAML file; systemd (EnvironmentFile=), docker (--env-file) and a "
    "shell (set -a; . ./FILE) read GRANTEX_<FLAG> from a file of variables"
)
INSTEAD = dict.fromkeys(("config_file", "configuration", "settings", "env_file"), _THE_FILE)
LoadConfig = Callable[[str, str], Config]


@dataclass
class Arrived:
    """What was given: for each of our names its sources ("--demo", "GRANTEX_DEMO") and texts."""

    given: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    beam_args: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    config: Config = field(default_factory=Config)

    def source(self, name: str) -> str:
        """How `name` was given, for a message about it."""
        sources = self.given.get(name)
        if not sources and name == "custom_destination" and self.config.own:
            return self.config.own[0].source
        return sources[0][0] if sources else f"--{name}"


def read(
    argv: Sequence[str],
    environ: Mapping[str, str],
    parameters: Mapping[str, Parameter],
    load: LoadConfig = lambda place, source: Config(),
    others: Callable[[], Mapping[str, Parameter]] = dict,
) -> Arrived:
    """Sort everything that was given. Flags win over the environment, and both over the file of --config.

    load: gives what the file at a place says; how the place was given is for a message. others: parameters of
    our other programs, which may share the environment; asked for when something in it is not known.
    """
    arrived = Arrived()
    on_flink = _runner(argv, environ) in flink.RUNNERS
    for position, name, value in _pairs(argv):
        if name is None:
            arrived.faults.append(f"argument {position} is not a flag; every setting is --name=value")
        elif name in parameters:
            _ours(arrived, parameters[name], value)
        else:
            _not_ours(arrived, position, name, value, parameters, flink.flags() if on_flink else {})
    environ = {name: value for name, value in environ.items() if not is_service_link(name, value)}
    _environment(arrived, environ, parameters)
    if places := arrived.given.get("config"):
        _file(arrived, load(places[0][1], places[0][0]))
    _unknown_variables(arrived, environ, parameters, others)
    return arrived


def _file(arrived: Arrived, config: Config) -> None:
    arrived.config = config
    arrived.faults += config.faults
    for name in config.given.keys() - arrived.given.keys():
        arrived.given[name] = config.given[name]
    if config.own:
        arrived.given.setdefault("custom_destination", [])


def _runner(argv: Sequence[str], environ: Mapping[str, str]) -> str:
    """What was given for it, right or wrong: further flags depend on it."""
    by_flag = [value for _, name, value in _pairs(argv) if name == "runner"]
    return (by_flag[-1] if by_flag else environ.get(f"{PREFIX}RUNNER")) or ""


def _pairs(argv: Sequence[str]) -> Iterator[tuple[int, str | None, str | None]]:
    """Position, name and value of each flag; name is None for a value that belongs to no flag."""
    position = 0
    while position < len(argv):
        argument = argv[position]
        position += 1
        if not argument.startswith("--") or argument == "--":
            yield position, None, None
            continue
        name, equals, value = argument[2:].partition("=")
        if equals:
            yield position, name, value
        elif position < len(argv) and not argv[position].startswith("--"):
            position += 1
            yield position - 1, name, argv[position - 1]
        else:
            yield position, name, None


def _ours(arrived: Arrived, parameter: Parameter, value: str | None) -> None:
    value = "true" if value is None and parameter.is_switch else value
    if value is None:
        example = parameter.example or parameter.default_in_words or parameter.placeholder
        if parameter.choices:
            example = parameter.choices[0]
        arrived.faults.append(f"{parameter.flag}: needs a value, such as {parameter.flag}={example}")
        arrived.given.setdefault(parameter.name, [])
    elif arrived.given.get(parameter.name) and not parameter.repeatable:
        arrived.faults.append(f"{parameter.flag}: is given more than once; give it once")
    else:
        arrived.given.setdefault(parameter.name, []).append((parameter.flag, value))


def _not_ours(
    arrived: Arrived,
    position: int,
    name: str,
    value: str | None,
    parameters: Mapping[str, Parameter],
    of_the_runner: Mapping[str, argparse.Action],
) -> None:
    beam = {} if normal(name) in parameters else {**of_the_runner, **beam_flags()}
    if name in beam:
        try:
            arrived.beam_args += _beam_argument(name, value, beam[name])
        except ValueError as error:
            arrived.faults.append(f"--{name}: {error}")
        return
    meant = did_you_mean(name, [*parameters, *beam])
    hint = f"; did you mean --{meant}?" if meant else "; --help lists all flags"
    if instead := INSTEAD.get(normal(name)):
        hint = f"; {instead}"
    shown = _shown_name(name, parameters)
    arrived.faults.append(
        (f"--{shown}: unknown flag" if shown else f"argument {position}: unknown flag") + hint
    )


def _shown_name(name: str, parameters: Mapping[str, Parameter]) -> str:
    """A flag's name without anything that might be a value stuck to it."""
    for parameter in parameters.values():
        if parameter.secret and name.startswith(parameter.name):
            return f"{parameter.name}…"
    return name if is_plain(name) else ""


def _environment(arrived: Arrived, environ: Mapping[str, str], parameters: Mapping[str, Parameter]) -> None:
    ours = {parameter.variable: parameter for parameter in parameters.values()}
    by_flag = frozenset(arrived.given)
    for variable in sorted(environ):
        parameter = ours.get(variable)
        if parameter is not None and parameter.name not in by_flag:
            arrived.given[parameter.name] = [(variable, environ[variable])]


def _unknown_variables(
    arrived: Arrived,
    environ: Mapping[str, str],
    parameters: Mapping[str, Parameter],
    others: Callable[[], Mapping[str, Parameter]],
) -> None:
    ours = {each.variable for each in parameters.values()} | _named_in(_secret_texts(arrived, parameters))
    unknown = [each for each in sorted(environ) if each.startswith(PREFIX) and each not in ours]
    if not unknown:
        return
    theirs = {each.variable: each for each in others().values()}
    secrets = [environ[name] for name, each in theirs.items() if each.secret and name in environ]
    known = {**others(), **parameters}
    for variable in unknown:
        if variable in theirs or variable in _named_in(secrets):
            continue
        meant = did_you_mean(variable.removeprefix(PREFIX), known)
        hint = f"; did you mean {known[meant].variable}?" if meant else "; --help lists all settings"
        if instead := INSTEAD.get(normal(variable.removeprefix(PREFIX))):
            hint = f"; {instead}"
        arrived.faults.append(f"{variable}: unknown setting{hint}")


def is_service_link(variable: str, value: str) -> bool:
    """Whether a variable under our prefix was set for a Service of Kubernetes, and not for us."""
    of_a_port = _LINK_PORT.fullmatch(variable) and _LINK_VALUE.fullmatch(value)
    return bool(of_a_port or _LINK.fullmatch(variable))


def _secret_texts(arrived: Arrived, parameters: Mapping[str, Parameter]) -> Iterator[str]:
    """What was given for secrets; of a file, all of it."""
    for name, sources in arrived.given.items():
        if parameters[name].secret:
            yield from (given for _, given in sources)
    yield from arrived.config.texts()


def _named_in(texts: Iterable[str]) -> frozenset[str]:
    """Variables that hold a secret's value because a text says env:NAME, by itself or as the value of a key
    (sasl.password=env:NAME)."""
    return frozenset(variable for text in texts for variable in re.findall(r"(?:^|=)env:(\w+)", text))


@functools.cache
def beam_flags() -> Mapping[str, argparse.Action]:
    """Beam's own flags by name, from its options classes. Importing Beam takes seconds: only when asked."""
    from apache_beam.options.pipeline_options import PipelineOptions

    flags: dict[str, argparse.Action] = {}
    classes = list(PipelineOptions.__subclasses__())
    for each in classes:
        classes += each.__subclasses__()
        if not each.__module__.startswith("apache_beam."):
            continue
        parser = argparse.ArgumentParser(add_help=False, conflict_handler="resolve")
        each._add_argparse_args(parser)
        for action in parser._actions:
            for option in action.option_strings:
                flags.setdefault(option.removeprefix("--"), action)
    return flags


def _beam_argument(name: str, value: str | None, action: argparse.Action) -> list[str]:
    """Beam's flag as PipelineOptions will accept it: there a wrong one ends the process with its usage."""
    if action.nargs == 0:
        if value is not None and value.lower() not in ("true", "false"):
            raise ValueError("must be true or false (one of Beam's own flags)")
        return [f"--{name}"] if value is None or value.lower() == "true" else _opposite(action)
    if value is None:
        if action.nargs == "?":
            return [f"--{name}"]
        raise ValueError("needs a value (one of Beam's own flags)")
    convert = action.type if callable(action.type) else str
    try:
        converted = convert(value)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        raise ValueError("Beam does not accept this value (one of Beam's own flags)") from None
    if action.choices is not None and converted not in action.choices:
        raise ValueError(f"must be one of {', '.join(map(str, action.choices))} (one of Beam's own flags)")
    return [f"--{name}={value}"]


def _opposite(action: argparse.Action) -> list[str]:
    """What says that a switch is off: nothing, or the other one of two (--use_public_ips=false)."""
    for name, other in beam_flags().items():
        if other.dest == action.dest and other.const is (not action.const):
            return [f"--{name}"]
    return []
