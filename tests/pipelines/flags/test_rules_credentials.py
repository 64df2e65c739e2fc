"""Credentials: readable at the start, and literals only at home."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.flags import rules
from pipelines.flags.settings import PARAMETERS
from transforms.secret import AwsSecret, EnvSecret, FileSecret, GoogleSecret, LiteralSecret, Secret

TOKEN = PARAMETERS["splunk_hec_token"]
VALUE = "b5a79aad-d822-46cc-80d1-819f80d7bfb0"


def check(secret: Secret, source: str = TOKEN.flag, runner: str = "DirectRunner") -> tuple[str, str]:
    return rules.check_credentials(TOKEN, source, secret, runner, {"HEC": VALUE, "EMPTY": ""})


def test_what_can_be_read_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(VALUE)
    assert check(EnvSecret("HEC")) == ("", "")
    assert check(FileSecret(str(tmp_path / "token"))) == ("", "")


def test_what_cannot_be_read_names_flag_and_reference(tmp_path: Path) -> None:
    missing = tmp_path / "token"
    assert check(EnvSecret("NONE")) == (
        "--splunk_hec_token: env:NONE: this environment variable is not set",
        "",
    )
    assert check(EnvSecret("EMPTY"))[0] == "--splunk_hec_token: env:EMPTY: the value is empty"
    assert (
        check(FileSecret(str(missing)))[0]
        == f"--splunk_hec_token: file:{missing}: the file cannot be read (No such file or directory)"
    )


@pytest.mark.parametrize("secret", [GoogleSecret("projects/p/secrets/s"), AwsSecret("hec")])
def test_secret_managers_are_not_asked_before_anything_connects(
    secret: Secret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(secret), "read", lambda _: pytest.fail("was read"))
    assert check(secret) == ("", "")


def test_a_literal_on_the_command_line_is_warned_about_and_one_in_the_environment_is_not() -> None:
    fault, warning = check(LiteralSecret(VALUE))
    assert fault == ""
    assert "--splunk_hec_token: a literal secret on a command line can be seen by everyone" in warning
    assert VALUE not in warning
    assert check(LiteralSecret(VALUE), TOKEN.variable) == ("", "")


def test_a_literal_is_refused_on_a_cluster() -> None:
    fault, _ = check(LiteralSecret(VALUE), runner="DataflowRunner")
    assert "--splunk_hec_token: a literal secret works on one machine only" in fault
    assert VALUE not in fault


@pytest.mark.parametrize("runner", ["FlinkRunner", "PrismRunner", "DataflowRunner"])
def test_what_workers_look_up_is_not_looked_up_here(runner: str) -> None:
    assert check(EnvSecret("NONE"), runner=runner)[0] == ""
    assert check(FileSecret("/nowhere"), runner=runner)[0] == ""


def test_dataflows_workers_rarely_have_a_variable_or_a_file_of_yours() -> None:
    for secret in (EnvSecret("HEC"), FileSecret("/run/hec")):
        fault, warning = check(secret, runner="DataflowRunner")
        assert fault == ""
        assert f"--splunk_hec_token: {secret} is looked up on each of Dataflow's workers" in warning
        assert check(secret, runner="FlinkRunner") == ("", "")
    assert check(GoogleSecret("projects/p/secrets/s"), runner="DataflowRunner") == ("", "")
