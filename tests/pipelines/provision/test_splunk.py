"""`provision splunk` against a practice Splunk: made once, left alone after, differences shown, no secret."""

from __future__ import annotations

import configparser
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.packs import splunk as pack
from pipelines.practice.splunk import PracticeSplunk
from pipelines.provision.splunk import AT_THE_PORT
from tests.pipelines.provision.conftest import Provisioning, Run
from tests.servers.splunk_management import LIMITED, PASSWORD, PracticeSplunkManagement
from tests.transforms.write.encodings import batch
from transforms.secret import FileSecret, redact
from transforms.write.splunk.destination import Splunk

SPIKE = "Grantex - Revocation spike"


@pytest.fixture
def hec() -> Iterator[PracticeSplunk]:
    with PracticeSplunk() as running:
        running.tokens.clear()  # a new one has none
        yield running


@pytest.fixture
def management(hec: PracticeSplunk, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeSplunkManagement]:
    with PracticeSplunkManagement(hec) as running:
        monkeypatch.setenv("SPLUNK_ADMIN", running.bearer)
        yield running


class OfSplunk(Provisioning):
    """`provision splunk` with a file for the token."""

    def __init__(self, hec: PracticeSplunk, management: PracticeSplunkManagement, run: Run, at: Path) -> None:
        super().__init__(run)
        self.hec, self.management, self.file = hec, management, at / "etc" / "token"

    def __call__(
        self, *flags: str, who: str = "--splunk_management_token=env:SPLUNK_ADMIN", **more: Any
    ) -> int:
        usual = [f"--splunk_hec_url={self.hec.url}", f"--splunk_management_url={self.management.url}"]
        if not any(flag.startswith("--splunk_hec_token") for flag in flags):
            usual.append(f"--splunk_hec_token=file:{self.file}")
        return self.run("splunk", "--splunk_index=grantex", *usual, *filter(None, [who]), *flags, **more)

    def kept(self, path: str) -> dict[str, dict[str, str]]:
        return self.management.knowledge[path].kept

    def writes(self) -> int:
        """Requests that changed something, or tried."""
        posts = (one for one in self.management.requests if one.method != "GET")
        return sum(1 for one in posts if not one.path.endswith("auth/login"))


@pytest.fixture
def provisioning(
    hec: PracticeSplunk, management: PracticeSplunkManagement, run: Run, tmp_path: Path
) -> OfSplunk:
    return OfSplunk(hec, management, run, tmp_path)


def test_a_new_splunk_takes_events_with_the_token_that_was_made(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0, provisioning.err
    (token,) = provisioning.hec.tokens
    assert (token.index, token.indexes, token.acknowledges, token.disabled) == (
        "grantex",
        ["grantex"],
        False,
        False,
    )
    assert provisioning.management.hec["disabled"] == "0"
    assert provisioning.file.read_text() == f"{token.value}\n"
    assert stat.S_IMODE(provisioning.file.stat().st_mode) == 0o600
    assert token.value not in provisioning.out + provisioning.err
    assert token.value not in redact(token.value)
    secret = FileSecret(str(provisioning.file))
    writer = Splunk(provisioning.hec.url, secret, index="grantex").open()
    assert writer.write(batch(1)) is None
    writer.close()
    assert [one.index for one in provisioning.hec.events] == ["grantex"]


def test_everything_of_the_app_is_made_as_the_port_names_it(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    searches = provisioning.kept("saved/searches")
    assert searches.keys() == pack.saved_searches().keys()
    for name, settings in pack.saved_searches().items():
        assert searches[name] == {AT_THE_PORT.get(key, key): value for key, value in settings.items()}
    assert searches[SPIKE]["alert_comparator"] == "greater than"
    assert {
        name: one["definition"] for name, one in provisioning.kept("configs/conf-macros").items()
    } == pack.MACROS
    assert provisioning.kept("configs/conf-props") == pack.props()
    assert provisioning.kept("data/ui/views")["grantex_overview"]["eai:data"] == pack.dashboard()
    assert "grantex_beam" in provisioning.kept("apps/local")
    assert ("configs/conf-macros", "grantex_owner") in provisioning.management.shared
    assert ("saved/searches", SPIKE) not in provisioning.management.shared


def test_a_second_time_nothing_is_changed_and_it_says_so(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    before = provisioning.writes()
    assert provisioning() == 0  # and nothing is asked
    assert provisioning.out.endswith("nothing is to be done\n")
    assert "different" not in provisioning.out
    assert provisioning.writes() == before


def test_what_somebody_changed_is_shown_and_left(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    search = provisioning.kept("saved/searches")[SPIKE]
    search["cron_schedule"] = "0 * * * *"
    search["search"] = search["search"].replace("> 10", "> 25")
    changed, before = dict(search), provisioning.writes()
    assert provisioning("--yes=true") == 0
    assert f'different   the alert "{SPIKE}"' in provisioning.out
    assert "cron_schedule: there 0 * * * *, ours 1-59/5 * * * *" in provisioning.out
    assert "> 25" in provisioning.out
    assert "one thing is otherwise, and left so; --overwrite=true makes what we can ours" in provisioning.out
    assert (search, provisioning.writes()) == (changed, before)
    assert provisioning("--yes=true", "--overwrite=true") == 0
    assert f'now ours    the alert "{SPIKE}"' in provisioning.out
    assert search["cron_schedule"] == "1-59/5 * * * *"
    assert provisioning() == 0
    assert "different" not in provisioning.out


def test_what_was_removed_by_hand_is_made_again_and_nothing_else(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    del provisioning.kept("saved/searches")[SPIKE]
    before = provisioning.writes()
    assert provisioning("--yes=true") == 0
    assert f'made        the alert "{SPIKE}"' in provisioning.out
    assert provisioning.writes() == before + 1


def test_a_token_whose_file_is_gone_is_fetched_again(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    before = provisioning.file.read_text()
    provisioning.file.unlink()
    assert provisioning("--yes=true") == 0
    assert provisioning.file.read_text() == before
    assert before.strip() not in provisioning.out
    assert len(provisioning.hec.tokens) == 1


def test_a_value_that_lies_there_becomes_the_tokens(
    provisioning: OfSplunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEC_EU", "11111111-2222-3333-4444-555555555555")
    assert provisioning("--yes=true", "--splunk_hec_token=env:HEC_EU") == 0
    assert [one.value for one in provisioning.hec.tokens] == ["11111111-2222-3333-4444-555555555555"]
    assert "11111111-2222" not in provisioning.out


def test_another_value_than_splunks_is_shown_and_neither_is_written_over(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true") == 0
    (token,) = provisioning.hec.tokens
    before = token.value
    provisioning.file.write_text("11111111-2222-3333-4444-555555555555\n")
    assert provisioning("--yes=true", "--overwrite=true") == 0
    assert f"value: there another one, ours that of file:{provisioning.file}" in provisioning.out
    assert "nothing is written over" in provisioning.out
    assert token.value == before
    assert before not in provisioning.out
    assert "11111111-2222" not in provisioning.out


def test_a_token_without_acknowledgement_gets_it_only_when_it_may_be_overwritten(
    provisioning: OfSplunk,
) -> None:
    assert provisioning("--yes=true") == 0
    acknowledging = ("--yes=true", "--splunk_acknowledge=true")
    assert provisioning(*acknowledging) == 0
    assert "useACK: there 0, ours 1" in provisioning.out
    assert not provisioning.hec.tokens[0].acknowledges
    assert provisioning(*acknowledging, "--overwrite=true") == 0
    assert provisioning.hec.tokens[0].acknowledges


def test_years_are_the_indexs_own_and_never_mains(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true", "--retention=hipaa") == 0
    assert "the index grantex: frozenTimePeriodInSecs 220924800" in provisioning.out
    assert (
        provisioning("--retention=hipaa", "--splunk_index=main", ask=lambda question: "n") == 2
    )  # given twice


def test_it_asks_and_without_a_yes_nothing_is_done(provisioning: OfSplunk) -> None:
    asked: list[str] = []

    def ask(question: str) -> str:
        asked.append(question)
        return "n"

    assert provisioning(ask=ask) == 1
    assert asked == ["Do it? [y/N] "]
    assert provisioning.writes() == 0
    assert not provisioning.file.exists()


@pytest.mark.parametrize("by", ["token", "password"])
def test_wrong_credentials_are_one_line(
    provisioning: OfSplunk, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WRONG", "wrong-credential")
    flags = ["--splunk_management_token=env:WRONG"]
    if by == "password":
        flags = ["--splunk_user=admin", "--splunk_password=env:WRONG"]
    assert provisioning(*flags, who="") == 1
    assert provisioning.err.count("\n") == 1
    assert "refused it, or user and password" in provisioning.err
    assert "Settings > Tokens" in provisioning.err
    assert "wrong-credential" not in provisioning.err


def test_a_user_who_may_only_look_is_told_which_right_each_thing_needs(
    provisioning: OfSplunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKER", PASSWORD)
    user = [f"--splunk_user={LIMITED}", "--splunk_password=env:LOOKER"]
    assert provisioning("--yes=true", *user, who="") == 1
    assert f"as {LIMITED}" in provisioning.out
    assert "REFUSED     the index grantex: this user may not" in provisioning.out
    assert "indexes_edit" in provisioning.out
    assert "edit_token_http" in provisioning.out
    assert "refused, as said above" in provisioning.err
    assert not provisioning.file.exists()


def test_what_is_missing_is_named(provisioning: OfSplunk, run: Run) -> None:
    assert provisioning(who="") == 2
    assert "--splunk_management_token: is missing" in provisioning.err
    assert run("splunk") == 2
    assert "--splunk_hec_url: is missing" in run.err
    assert run("splunk", "--splunk_hec_url=https://s:8088") == 2
    assert "--splunk_hec_token" in run.err


def test_a_port_that_is_no_management_port_is_named(
    provisioning: OfSplunk, hec: PracticeSplunk, run: Run, tmp_path: Path
) -> None:
    usual = [f"--splunk_hec_url={hec.url}", f"--splunk_hec_token=file:{tmp_path}/t"]
    who = "--splunk_management_token=env:SPLUNK_ADMIN"
    assert run("splunk", *usual, who, f"--splunk_management_url={hec.url}") == 1
    assert "--splunk_management_url" in run.err
    hec.refuse_connections()
    assert run("splunk", *usual, who, f"--splunk_management_url={hec.url}") == 1
    assert "could not be reached" in run.err


def test_splunk_cloud_makes_index_and_token_by_its_own_command(provisioning: OfSplunk) -> None:
    provisioning.management.instance_type = "cloud"
    assert provisioning("--yes=true") == 0
    assert "by hand     the index: acs indexes create --name grantex" in provisioning.out
    assert "acs hec-token create --name grantex" in provisioning.out
    assert provisioning.hec.tokens == []
    assert SPIKE in provisioning.kept("saved/searches")


BY_TYPE = "--splunk_index_by_type=grant.*=identity,wallet.*=payments"


def test_indexes_by_type_are_made_and_allowed(provisioning: OfSplunk) -> None:
    assert provisioning("--yes=true", BY_TYPE) == 0, provisioning.err
    (token,) = provisioning.hec.tokens
    assert (token.index, sorted(token.indexes)) == ("grantex", ["grantex", "identity", "payments"])
    assert {"grantex", "identity", "payments"} <= provisioning.hec.indexes
    macro = provisioning.kept("configs/conf-macros")["grantex_index"]["definition"]
    assert macro == 'index IN ("grantex", "identity", "payments") source="grantex"'
    before = provisioning.writes()
    assert provisioning(BY_TYPE) == 0
    assert provisioning.writes() == before


def test_indexes_by_type_are_printed(provisioning: OfSplunk, tmp_path: Path) -> None:
    assert provisioning("--print=true", f"--into={tmp_path / 'out'}", BY_TYPE, who="") == 0
    inputs, indexes = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    inputs.read(tmp_path / "out" / "inputs.conf")
    indexes.read(tmp_path / "out" / "indexes.conf")
    assert indexes.sections() == ["grantex", "identity", "payments"]
    assert indexes["payments"]["homepath"] == "$SPLUNK_DB/payments/db"
    assert inputs["http://grantex"]["indexes"] == "grantex,identity,payments"


def test_printed_it_is_conf_files_and_nobody_is_asked(provisioning: OfSplunk, tmp_path: Path) -> None:
    into = tmp_path / "made"
    assert provisioning("--print=true", f"--into={into}", "--splunk_acknowledge=true", who="") == 0
    assert provisioning.management.requests == []
    inputs, indexes = (configparser.ConfigParser(interpolation=None) for _ in range(2))
    inputs.read(into / "inputs.conf")
    assert inputs["http://grantex"]["useack"] == "1"
    indexes.read(into / "indexes.conf")
    assert indexes["grantex"]["homepath"] == "$SPLUNK_DB/grantex/db"
    app = Path("templates/packs/splunk/grantex_beam")
    made = {path.relative_to(into / app.name): path.read_text() for path in (into / app.name).rglob("*.*")}
    assert made == {path.relative_to(app): path.read_text() for path in app.rglob("*.*")}
    assert provisioning("--print=true", who="") == 0
    assert "==> inputs.conf <==" in provisioning.out
