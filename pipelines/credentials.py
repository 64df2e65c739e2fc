"""What the command line adds to secrets: each can be read at the start, and literals stay at home."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import cast

from pipelines.groups.run import DATAFLOW, IN_PROCESS
from pipelines.parameters import Parameter
from transforms.secret import EnvSecret, FileSecret, LiteralSecret, Secret, SecretError
from transforms.write.contract import Destination


def secrets_in(value: object) -> Iterator[Secret]:
    """Every secret in a parameter's value: itself, in its pairs, or in the fields of a destination."""
    if isinstance(value, tuple):
        for each in value:
            yield from secrets_in(each)
    elif isinstance(value, Destination) and dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from secrets_in(getattr(value, field.name))
    elif value is not None and callable(getattr(value, "read", None)):
        yield cast(Secret, value)


def check(
    parameter: Parameter, source: str, secret: Secret, runner: str, environ: Mapping[str, str]
) -> tuple[str, str]:
    """A fault and a warning, each "" when there is none. Nothing is fetched from a secret manager here.

    source: where the reference came from, "--splunk_hec_token" or "GRANTEX_SPLUNK_HEC_TOKEN".
    environ: the environment that `env:` references are looked up in.
    """
    if isinstance(secret, LiteralSecret):
        return _literal(parameter, source, runner)
    if runner != IN_PROCESS:
        return "", _elsewhere(source, secret, runner)
    try:
        if isinstance(secret, EnvSecret):
            secret.value_in(environ)
        elif isinstance(secret, FileSecret):
            secret.read()
    except SecretError as error:
        return f"{source}: {error}", ""
    return "", ""


def _literal(parameter: Parameter, source: str, runner: str) -> tuple[str, str]:
    if runner != IN_PROCESS:
        return (
            f"{source}: a literal secret works on one machine only, and {runner} uses others; give "
            "secret:projects/P/secrets/S, aws-secret:NAME, or env:NAME or file:PATH that each worker has"
        ), ""
    if source == parameter.flag:
        return "", (
            f"{source}: a literal secret on a command line can be seen by everyone on this machine; use "
            "env:NAME or file:PATH"
        )
    return "", ""


def _elsewhere(source: str, secret: Secret, runner: str) -> str:
    """A reference that is looked up on the workers, which may have what this machine has not."""
    if runner == DATAFLOW and isinstance(secret, (EnvSecret, FileSecret)):
        return (
            f"{source}: {secret} is looked up on each of Dataflow's workers, which have it only if your "
            "image does; secret:projects/P/secrets/S (Google Secret Manager) is what they can read"
        )
    return ""
