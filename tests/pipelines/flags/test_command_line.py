"""Arguments and environment: what is ours, what is not, and what is said about the rest."""

from __future__ import annotations

import pytest

from pipelines import where
from pipelines.flags.command_line import is_service_link
from pipelines.flags.settings import PARAMETERS, parse
from tests.pipelines.flags.refusing import ENVIRON, FEED, refused

BASE = [FEED, "--files_dir=./out"]
# As Kubernetes names them: for each Service {NAME}_SERVICE_HOST, and for each of its ports the rest.
LINKS = {
    "{}_SERVICE_HOST": "10.96.12.7",
    "{}_SERVICE_PORT": "3001",
    "{}_SERVICE_PORT_HTTP_ALT": "3001",
    "{}_PORT": "tcp://10.96.12.7:3001",
    "{}_PORT_3001_TCP": "tcp://10.96.12.7:3001",
    "{}_PORT_3001_TCP_PROTO": "tcp",
    "{}_PORT_3001_TCP_PORT": "3001",
    "{}_PORT_3001_TCP_ADDR": "10.96.12.7",
    "{}_PORT_53_UDP": "udp://[fd01::7]:53",
    "{}_PORT_53_UDP_ADDR": "fd01::7",
    "{}_PORT_38412_SCTP": "sctp://10.96.12.7:38412",
}


@pytest.mark.parametrize(
    "service", ["GRANTEX", "GRANTEX_BEAM", "GRANTEX_AUTH_V2", "GRANTEX_STATUS", "GRANTEX_FEED"]
)
def test_service_links_of_kubernetes_are_not_ours(service: str) -> None:
    environ = {name.format(service): value for name, value in LINKS.items()}
    settings = parse(BASE, {**ENVIRON, **environ})
    assert settings.warnings == ()
    assert settings.status_port == 8787
    assert settings.given == {"feed_api_key", "files_dir"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GRANTEX_PORT", "8787"),
        ("GRANTEX_STATUS_PORTS", "8787"),
        ("GRANTEX_SERVICE", "x"),
        ("GRANTEX_PORT_80_HTTP", "x"),
        ("GRANTEX_SERVICE_HOSTS", "x"),
    ],
)
def test_what_only_looks_a_little_like_one_is_still_unknown(variable: str, value: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRON, variable, value)
        (line,) = refused("--files_dir=./out")
    assert line.startswith(f"{variable}: unknown setting")


def test_what_another_of_our_programs_has_for_itself_may_be_set_for_all_of_them() -> None:
    theirs = {
        "GRANTEX_SPLUNK_MANAGEMENT_URL": "https://splunk.test:8089",
        "GRANTEX_SPLUNK_PASSWORD": "env:GRANTEX_OF_AN_ADMIN",
        "GRANTEX_OF_AN_ADMIN": "pass-word",
        "GRANTEX_AGAINST": "receipts",
    }
    assert parse(BASE, {**ENVIRON, **theirs}).given == {"feed_api_key", "files_dir"}
    assert parse(["--state_dir=./x"], {**ENVIRON, **theirs}, where.PROGRAM).given == {"state_dir"}


def test_a_slip_in_what_another_program_has_is_told_with_what_was_meant() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENVIRON, "GRANTEX_SPLUNK_MANAGEMENT_URI", "https://splunk.test:8089")
        patch.setitem(ENVIRON, "GRANTEX_SPLUNK_INDX", "main")
        lines = refused("--files_dir=./out")
    assert lines == [
        "GRANTEX_SPLUNK_INDX: unknown setting; did you mean GRANTEX_SPLUNK_INDEX?",
        "GRANTEX_SPLUNK_MANAGEMENT_URI: unknown setting; did you mean GRANTEX_SPLUNK_MANAGEMENT_URL?",
    ]


def test_none_of_our_own_variables_is_taken_for_one() -> None:
    for parameter in PARAMETERS.values():
        for text in (parameter.default_in_words, parameter.example, "8080", "http://127.0.0.1:80"):
            assert not is_service_link(parameter.variable, text), parameter.variable


def test_a_port_of_ours_is_taken_as_before() -> None:
    assert parse(BASE, {**ENVIRON, "GRANTEX_STATUS_PORT": "9090"}).status_port == 9090


SWITCHES = [name for name, each in PARAMETERS.items() if each.is_switch]


def test_there_are_switches() -> None:
    assert {"demo", "splunk_acknowledge"} <= set(SWITCHES)


@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_alone_is_true(name: str) -> None:
    more = (
        [] if name == "demo" else [*BASE, "--splunk_hec_url=https://s.test", "--splunk_hec_token=env:DD_KEY"]
    )
    for argv in ([f"--{name}", *more], [*more, f"--{name}"], [*more, f"--{name}", "true"]):
        assert parse(argv, ENVIRON)[name] is True
    assert parse([*more, f"--{name}", "false", *BASE[: 0 if more else 2]], ENVIRON)[name] is False


def test_a_switch_with_a_stray_word_says_what_it_takes() -> None:
    assert refused("--files_dir=./out", "--splunk_acknowledge", "yes")[0] == (
        "--splunk_acknowledge: must be true or false; the default is false"
    )


@pytest.mark.parametrize("given", ["--settings=x.yaml", "--env_file", "--config_file=x", "--config-file=x"])
def test_who_looks_for_a_file_of_settings_is_told_what_there_is(given: str) -> None:
    (line,) = refused("--files_dir=./out", given)
    told = "unknown flag; --config=FILE reads settings from a YAML file; "
    assert line.startswith(f"{given.partition('=')[0]}: {told}")
    assert "GRANTEX_<FLAG>" in line
    assert "--env-file" in line
