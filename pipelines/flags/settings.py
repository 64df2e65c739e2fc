"""Settings: all parameters, read from flags and environment and checked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines import exit_codes
from pipelines.flags import command_line, config, destinations, manual, rules
from pipelines.flags.general import (
    FeedParameters,
    HttpParameters,
    KeepingParameters,
    PseudonymParameters,
    RunParameters,
    WatchingParameters,
    WebhookParameters,
)
from pipelines.flags.parameter import Parameter, declared
from pipelines.programs import own_parameters
from transforms.secret import redact


class BadParameters(Exception):
    """What was given cannot be run. `lines` say it to a person, one fault each, without secrets; `code` is
    the exit code, as a settings file that cannot be read now is nobody's mistake."""

    def __init__(self, lines: list[str], code: int = exit_codes.BAD_PARAMETERS) -> None:
        super().__init__("\n".join(lines))
        self.lines, self.code = lines, code


# In the order in which help and the table tell them; the built-in destinations come before one's own.
ROOMS = (
    RunParameters,
    FeedParameters,
    WebhookParameters,
    KeepingParameters,
    WatchingParameters,
    HttpParameters,
    PseudonymParameters,
)
# The service repeats a webhook for some eight minutes, and again after crashes of its own.
HORIZON_WITH_WEBHOOKS = 86_400.0
PARAMETERS: Mapping[str, Parameter] = {
    each.name: each
    for each in (
        *(each for room in ROOMS for each in declared(room)),
        *(each for kind in destinations.KINDS for each in destinations.parameters_of(kind)),
        *declared(destinations.CustomParameters),
    )
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Settings(
    RunParameters,
    FeedParameters,
    WebhookParameters,
    KeepingParameters,
    WatchingParameters,
    HttpParameters,
    PseudonymParameters,
    destinations.CustomParameters,
):
    """What a run was asked to do; "" and None stand for what was not given and has no default.

    of_destinations: the flags of built-in destinations that are not at their defaults; read them, and any
    other by its name, as `settings["splunk_index"]`.
    """

    of_destinations: Mapping[str, Any] = field(default_factory=dict)
    given: frozenset[str] = frozenset()  # names that a flag or the environment set
    # Beam's own flags, checked and nothing else, for PipelineOptions.
    beam_args: list[str] = field(default_factory=list)
    warnings: tuple[str, ...] = ()  # to be logged at the start

    def __getitem__(self, name: str) -> Any:
        """The value of the parameter `name`."""
        if name in self.of_destinations:
            return self.of_destinations[name]
        return getattr(self, name) if hasattr(type(self), name) else PARAMETERS[name].default

    @property
    def horizon(self) -> float:
        """Seconds for which an event's id is remembered."""
        if self.webhook_port and "dedupe_horizon" not in self.given:
            return max(self.dedupe_horizon, HORIZON_WITH_WEBHOOKS)
        return self.dedupe_horizon

    def changed(self, **values: Any) -> Settings:
        """These settings with other values of the parameters of these names."""
        own = {name: value for name, value in values.items() if hasattr(type(self), name)}
        of_destinations = {
            **self.of_destinations,
            **{name: values[name] for name in values.keys() - own.keys()},
        }
        return replace(self, **own, of_destinations=of_destinations)

    def __repr__(self) -> str:
        shown = [f"{each}={self[each]!r}" for each in PARAMETERS]
        beam = [arg.partition("=")[0] for arg in self.beam_args]
        return redact(f"Settings({', '.join(shown)}, beam_args={beam})")


@dataclass(frozen=True)
class Program:
    """Which parameters a program has.

    name: "" for the job. own: those that no other program has; read them as `settings["plan_only"]`.
    uses: names of the job's that have a meaning for it, None for all. Another one is refused as a flag, with
    `instead`, and passed over in the environment, which may be the job's own. help: what `--help` prints.
    lenient: it is passed over as a flag, too, so that the job's own command line will do.
    """

    name: str = ""
    own: Mapping[str, Parameter] = field(default_factory=dict)
    uses: frozenset[str] | None = None
    instead: str = ""
    help: Callable[[], str] = lambda: manual.help_text(PARAMETERS)
    needs_destination: bool = True
    lenient: bool = False

    def parameters(self) -> Mapping[str, Parameter]:
        """Those that it uses."""
        uses = PARAMETERS.keys() if self.uses is None else self.uses
        return {**self.own, **{name: each for name, each in PARAMETERS.items() if name in uses}}


JOB = Program()


def parse(argv: Sequence[str], environ: Mapping[str, str], program: Program = JOB) -> Settings:
    """What the arguments (without the program's name) and the environment ask for.

    Raises BadParameters with every fault found, and SystemExit(0) after `--help` and `--version`.
    """
    return checked(arrived(argv, environ, program), environ, program)


def arrived(argv: Sequence[str], environ: Mapping[str, str], program: Program = JOB) -> command_line.Arrived:
    """What was given, and where: as it was written. Raises SystemExit(0) after `--help` and `--version`."""
    if "--help" in argv or "-h" in argv:
        print(program.help())
        raise SystemExit(0)
    if "--version" in argv:
        print(manual.version())
        raise SystemExit(0)
    known = {**program.own, **PARAMETERS}
    return command_line.read(
        argv,
        environ,
        known,
        lambda place, source: config.load(place, known, destinations.KINDS, source, own_parameters),
        own_parameters,
    )


def checked(arrived: command_line.Arrived, environ: Mapping[str, str], program: Program = JOB) -> Settings:
    """What was given, read and checked together. Raises BadParameters."""
    if arrived.config.passes:  # whatever else there is to say follows from that
        raise BadParameters([redact(line) for line in arrived.config.faults], exit_codes.FAILED)
    parameters = program.parameters()
    _leave_out(arrived, program, parameters)
    read, bad, lines = _values(arrived, parameters)
    defaults = {name: each.default for name, each in program.own.items()}
    settings = replace(Settings().changed(**{**defaults, **read}), beam_args=arrived.beam_args)
    settings = _with_given(settings, frozenset(arrived.given), parameters)
    more, warnings = rules.check(
        settings, parameters, arrived, bad, environ, needs_destination=program.needs_destination
    )
    lines = [*arrived.faults, *lines, *more, *destinations.faults(settings, arrived.source, bad)]
    if lines:
        raise BadParameters([redact(line) for line in lines])
    return replace(settings, warnings=tuple(redact(line) for line in warnings))


def _leave_out(arrived: command_line.Arrived, program: Program, parameters: Mapping[str, Parameter]) -> None:
    """Forget what was given and has no meaning for the program."""
    for name in sorted(arrived.given.keys() - parameters.keys()):
        source = arrived.source(name)
        if source.startswith("--") and not program.lenient:
            arrived.faults.append(f"{source}: has no meaning for {program.name}{program.instead}")
        del arrived.given[name]


def _with_given(settings: Settings, names: frozenset[str], parameters: Mapping[str, Parameter]) -> Settings:
    """The form of a template hands over defaults, also of what is not switched on: there they count as not
    given."""
    if not settings.in_process:
        names -= {name for name in names if settings[name] == parameters[name].default}
    return replace(settings, given=names)


def _values(
    arrived: command_line.Arrived, parameters: Mapping[str, Parameter]
) -> tuple[dict[str, Any], frozenset[str], list[str]]:
    """The values that could be read, the names of those that could not, and why."""
    read: dict[str, Any] = {}
    lines = []
    for name, sources in arrived.given.items():
        parameter = parameters[name]
        for source, given in sources:
            value, fault = parameter.attempt(source, given)
            if fault:
                lines.append(fault)
            else:
                read[name] = read.get(name, ()) + value if parameter.repeatable else value
    own, more = config.destinations_of(arrived.config)
    if own:
        read["custom_destination"] = (*read.get("custom_destination", ()), *own)
    lines += more
    return read, frozenset(arrived.given) - read.keys(), lines
