"""What a destination asks for, however it is given: by flag, environment, a file, or behind a custom one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from pipelines.flags import custom
from pipelines.flags.destinations import destinations
from pipelines.flags.settings import BadParameters, parse
from tests.pipelines.flags.refusing import ENVIRON
from tests.pipelines.flags.test_config import faults, read, written
from transforms.batch import BatchPolicy
from transforms.secret import EnvSecret
from transforms.write.asked import ALL_TYPES, Asked
from transforms.write.files.destination import Files

AUDIT = "tests.pipelines.example_destination:Audit"
FILE = f"""\
feed_api_key: env:FEED_KEY
destinations:
  splunk_eu:
    {{kind: splunk, hec_url: "https://eu", hec_token: env:DD_KEY, types: ["grant.*", "!grant.created"]}}
  files: {{dir: out, types: "!wallet.*"}}
  own: {{kind: "{AUDIT}", url: "https://own", token: env:DD_KEY, types: token.*}}
  all: {{kind: s3, bucket: audit}}
"""


def test_each_named_destination_of_a_file_asks_for_its_own(tmp_path: Path) -> None:
    found = {each.name: each.asked for each in destinations(read(tmp_path, FILE))}
    assert found == {
        "splunk_eu": Asked(("grant.*", "!grant.created")),
        "files": Asked(("!wallet.*",)),
        "own": Asked(("token.*",)),
        "all": ALL_TYPES,
    }


def test_flags_win_over_the_environment_and_that_over_a_file(tmp_path: Path) -> None:
    settings = read(tmp_path, FILE, GRANTEX_FILES_TYPES="grant.*")
    assert [each.asked.types for each in destinations(settings) if each.name == "files"] == [("grant.*",)]
    settings = read(tmp_path, FILE, "--files_types=sso.*", GRANTEX_FILES_TYPES="grant.*")
    assert [each.asked.types for each in destinations(settings) if each.name == "files"] == [("sso.*",)]


def test_ones_own_class_needs_no_field_for_it_and_keeps_it_on_its_way_to_a_worker() -> None:
    own = f"--custom_destination={AUDIT}?name=audit&url=https://own&token=env:DD_KEY&types=grant.*,sso.*"
    [found] = destinations(parse(["--feed_api_key=env:FEED_KEY", own], ENVIRON))
    for each in (found, pickle.loads(pickle.dumps(found)), custom.changed(found, url="https://other")):
        assert (each.name, each.asked.types) == ("audit", ("grant.*", "sso.*"))
    assert found == parse(["--feed_api_key=env:FEED_KEY", own], ENVIRON).custom_destination[0]


def test_a_changed_copy_of_a_built_in_one_keeps_all_else() -> None:
    one = custom.named(Files("out", asked=Asked(("grant.*",))), "copy")
    other = custom.changed(one, policy=BatchPolicy(1, 1, 1.0))
    assert (other.name, other.asked, other.policy.max_events) == ("copy", one.asked, 1)


def test_slips_are_warned_of_where_they_stand(tmp_path: Path) -> None:
    text = FILE.replace("!grant.created", "!grant.craeted").replace("token.*", "tokn.*")
    said = " is no event type that this version knows; did you mean grant.created?"
    assert read(tmp_path, text, "--files_types=grant.created").warnings == (
        f"grantex.yaml:4: destinations.splunk_eu.types: !grant.craeted{said}",
        "grantex.yaml:6: destinations.own.types: tokn.* matches no event type that this version knows",
    )
    given = ["--feed_api_key=env:FEED_KEY", "--files_dir=out", "--files_types=grant.craeted"]
    assert parse(given, ENVIRON).warnings == (f"--files_types: grant.craeted{said}",)


@pytest.mark.parametrize(
    ("types", "why"),
    [
        ("\n      - !wallet.*", "begins with !, which YAML takes for a tag: put it into quotes"),
        (" []", "has no value; leave the line out for the default"),
        (' "grant.*,!"', "has a ! with no type behind it"),
        (' "a,,b"', "has an empty name between its commas"),
    ],
)
def test_what_cannot_be_types_is_one_line(tmp_path: Path, types: str, why: str) -> None:
    [line] = faults(tmp_path, f"destinations:\n  files:\n    types:{types}\n")
    assert line.startswith("grantex.yaml:")
    assert why in line


SPLUNK = ["--splunk_hec_url=https://s", "--splunk_hec_token=env:DD_KEY"]
PSEUDONYMS = [*SPLUNK, "--splunk_pseudonymize=data.principalId"]
NEEDS = "needs --pseudonym_key, for example --pseudonym_key=env:PSEUDONYM_KEY"
FEED = "--feed_api_key=env:FEED_KEY"


def test_all_pseudonyms_are_under_one_key_unless_a_named_destination_has_its_own(tmp_path: Path) -> None:
    text = FILE.replace("types: token.*", "pseudonymize: data.a, pseudonym_key: env:OWN").replace(
        "bucket: audit", "bucket: audit, pseudonymize: [data.b, data.c.d]"
    )
    environ = {**ENVIRON, "ALL": "a" * 16, "OWN": "b" * 16}
    settings = parse([written(tmp_path, text), *PSEUDONYMS, "--pseudonym_key=env:ALL"], environ)
    found = {each.name: each.asked for each in destinations(settings)}
    everybodys, own = EnvSecret("ALL"), EnvSecret("OWN")
    assert found["splunk"] == Asked((), ("data.principalId",), everybodys)
    assert found["all"] == Asked((), ("data.b", "data.c.d"), everybodys)
    assert found["own"] == Asked((), ("data.a",), own)
    assert found["files"].pseudonymize == ()


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (PSEUDONYMS, f"--splunk_pseudonymize: {NEEDS}"),
        ([*PSEUDONYMS, "--pseudonym_key=env:SHORT"], "--pseudonym_key: must have 16 characters or more"),
        (
            ["--files_dir=out", "--files_pseudonymize=principalId", "--pseudonym_key=env:LONG"],
            "--files_pseudonymize: must be fields of data, such as data.principalId or data.user.email; "
            "for example --files_pseudonymize=data.principalId,data.user.email",
        ),
        (
            [f"--custom_destination={AUDIT}?name=own&url=https://own&token=env:DD_KEY&pseudonymize=data.a"],
            f"--custom_destination: own: pseudonymize {NEEDS}",
        ),
    ],
)
def test_what_cannot_be_pseudonyms_is_one_line(argv: list[str], line: str) -> None:
    with pytest.raises(BadParameters) as raised:
        parse([FEED, *argv], {**ENVIRON, "SHORT": "0123456789", "LONG": "0123456789abcdef"})
    assert raised.value.lines == [line]


def test_a_literal_key_is_refused_on_a_cluster() -> None:
    cluster = ["--runner=FlinkRunner", "--dead_letters=gs://letters"]
    own = f"--custom_destination={AUDIT}?name=own&url=https://own&token=env:DD_KEY&pseudonymize=data.a"
    key = "pseudonym_key=0123456789abcdef"
    for argv in ([*PSEUDONYMS, f"--{key}"], [f"{own}&{key}"]):
        with pytest.raises(BadParameters) as raised:
            parse([FEED, *cluster, *argv], ENVIRON)
        [line] = raised.value.lines
        assert "a literal secret works on one machine only" in line
        assert "0123456789abcdef" not in line
