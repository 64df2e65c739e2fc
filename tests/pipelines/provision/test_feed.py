"""`provision feed`: what it registers, what it says and asks, and that it never harms what is there."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import provision
from pipelines.practice.feed import PracticeFeed
from pipelines.practice.ledger import OLD_TYPES, Ledger
from tests.pipelines.provision.conftest import Provisioning, Run
from transforms.event_types import KNOWN
from transforms.secret import SecretError, redact

URL = "https://events.example.com/grantex"


class OfFeed(Provisioning):
    """`provision feed` against a practice service, with a file for the secret."""

    def __init__(self, feed: PracticeFeed, place: Path, run: Run) -> None:
        super().__init__(run)
        self.feed, self.file = feed, place / "etc" / "webhook-secret"

    def __call__(self, *flags: str, **more: Any) -> int:
        usual = (f"--feed_url={self.feed.url}", "--feed_api_key=env:PROVISION_KEY", f"--webhook_url={URL}")
        return self.run("feed", *usual, f"--webhook_secret=file:{self.file}", *flags, **more)

    @property
    def webhooks(self) -> list[tuple[str, int]]:
        """Addresses, and how many types each has."""
        return [(each.url, len(each.events)) for each in self.feed.ledger.webhooks.values()]


@pytest.fixture
def feed(monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeFeed]:
    with PracticeFeed() as made:
        monkeypatch.setenv("PROVISION_KEY", made.api_key)
        yield made


@pytest.fixture
def provisioning(feed: PracticeFeed, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> OfFeed:
    monkeypatch.chdir(tmp_path)
    return OfFeed(feed, tmp_path, run)


def test_the_newer_service_takes_every_type_and_the_secret_is_its_owners_alone(
    provisioning: OfFeed,
) -> None:
    assert provisioning("--yes=true") == 0
    assert provisioning.webhooks == [(URL, len(KNOWN))]
    (made,) = provisioning.feed.ledger.webhooks.values()
    assert provisioning.file.read_text() == f"{made.secret}\n"
    assert stat.S_IMODE(provisioning.file.stat().st_mode) == 0o600
    assert stat.S_IMODE(provisioning.file.parent.stat().st_mode) == 0o700
    assert f"its secret is in file:{provisioning.file}" in provisioning.out
    assert "not covered" not in provisioning.out
    assert made.secret not in provisioning.out + provisioning.err
    assert made.secret not in redact(made.secret)


def test_with_the_older_service_the_types_are_its_own_and_the_others_are_named(
    provisioning: OfFeed,
) -> None:
    provisioning.feed.ledger = Ledger("O")
    assert provisioning("--yes=true") == 0
    assert provisioning.webhooks == [(URL, len(OLD_TYPES))]
    missing = next(line for line in provisioning.out.splitlines() if line.startswith("not covered"))
    assert f"{len(KNOWN) - 3} types" in missing
    assert "budget.exhausted" in missing
    assert "grant.created" not in missing


def test_types_may_be_chosen(provisioning: OfFeed) -> None:
    provisioning.feed.ledger = Ledger("O")
    assert provisioning("--yes=true", "--feed_types=grant.revoked,sso.login") == 0
    assert provisioning.webhooks == [(URL, 1)]
    assert "not covered, and had from the streams only: the type sso.login" in provisioning.out


def test_none_of_the_types_is_told(provisioning: OfFeed) -> None:
    provisioning.feed.ledger = Ledger("O")
    assert provisioning("--yes=true", "--feed_types=sso.login") == 1
    assert "webhooks for none of --feed_types; for 3 types (grant.created" in provisioning.err
    assert provisioning.webhooks == []
    assert not provisioning.file.exists()


def test_a_second_time_there_is_nothing_to_do(provisioning: OfFeed) -> None:
    assert provisioning("--yes=true") == 0
    before = provisioning.file.read_text()
    assert provisioning() == 0  # and nothing is asked
    assert provisioning() == 0
    assert "nothing is to be done" in provisioning.out
    assert len(provisioning.webhooks) == 1
    assert provisioning.file.read_text() == before


@pytest.mark.parametrize(("said", "made"), [("y", 1), ("yes", 1), ("", 0), ("n", 0), ("maybe", 0)])
def test_it_shows_what_it_will_do_and_asks(provisioning: OfFeed, said: str, made: int) -> None:
    assert provisioning(ask=lambda question: said) == (0 if made else 1)
    assert f"it will post to {URL}" in provisioning.out
    assert f"its secret goes to file:{provisioning.file}" in provisioning.out
    assert len(provisioning.webhooks) == made
    assert provisioning.file.exists() == bool(made)


def test_where_nobody_can_be_asked_it_says_so(provisioning: OfFeed) -> None:
    def nobody(question: str) -> str:
        raise EOFError

    assert provisioning(ask=nobody) == 2
    assert "--yes=true" in provisioning.err
    assert provisioning.webhooks == []


def test_shown_only_nothing_is_done(provisioning: OfFeed) -> None:
    assert provisioning("--print=true") == 0
    assert f"it will post to {URL}" in provisioning.out
    assert provisioning.webhooks == []
    assert not provisioning.file.exists()


def test_a_secret_that_lies_there_is_not_written_over(provisioning: OfFeed) -> None:
    provisioning.file.parent.mkdir()
    provisioning.file.write_text("the secret of another webhook\n")
    assert provisioning("--yes=true") == 1
    assert "nothing is written over" in provisioning.err
    assert provisioning.webhooks == []
    second = provisioning.file.with_name("second")
    assert provisioning("--yes=true", f"--webhook_secret=file:{second}") == 0
    assert provisioning.file.read_text() == "the secret of another webhook\n"
    assert len(second.read_text()) == 49


def test_a_webhook_whose_secret_is_lost_is_not_made_twice_but_told(provisioning: OfFeed) -> None:
    assert provisioning("--yes=true") == 0
    provisioning.file.unlink()
    assert provisioning("--yes=true") == 1
    assert "its secret, which was shown once when it was made, is not in file:" in provisioning.err
    assert provisioning("--yes=true", f"--webhook_url={URL}?second") == 2


def test_a_second_webhook_differs_by_its_query(provisioning: OfFeed) -> None:
    assert provisioning("--yes=true") == 0
    second = provisioning.file.with_name("second")
    flags = (f"--feed_url={provisioning.feed.url}", "--feed_api_key=env:PROVISION_KEY", "--yes=true")
    more = (f"--webhook_url={URL}?second", f"--webhook_secret=file:{provisioning.file}")
    assert provision.main(["feed", *flags, *more, f"--webhook_secret=file:{second}"]) == 0
    assert [url for url, _ in provisioning.webhooks] == [URL, f"{URL}?second"]
    assert second.read_text() != provisioning.file.read_text()


def test_a_full_plan_is_told_and_leaves_no_file(provisioning: OfFeed) -> None:
    provisioning.feed.ledger.most_webhooks = 0
    assert provisioning("--yes=true") == 1
    assert "the account's plan has no room for another webhook: Plan limit reached" in provisioning.err
    assert not provisioning.file.exists()


def test_a_secret_that_cannot_be_put_there_after_all_is_saved_elsewhere(
    provisioning: OfFeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(question: str) -> str:
        provisioning.file.mkdir(parents=True)  # between the plan and the deed
        return "y"

    assert provisioning(ask=answer) == 1
    assert provisioning.webhooks == []  # found out before anything was registered
    provisioning.file.rmdir()

    from transforms import secret_store

    put, calls = secret_store.FilePlace.put, []

    def fails_once(self: secret_store.FilePlace, value: str) -> None:
        calls.append(value)
        if len(calls) == 1:
            raise SecretError("file: the disk is full")
        put(self, value)

    monkeypatch.setattr(secret_store.FilePlace, "put", fails_once)  # a disk that is full just then
    assert provisioning("--yes=true") == 1
    (made,) = provisioning.feed.ledger.webhooks.values()
    saved = tmp_path / f"{made.id}.secret"
    assert saved.read_text() == f"{made.secret}\n"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert str(saved) in provisioning.err
    assert made.secret not in provisioning.err


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "refused the key"),
        (403, "refused the key"),
        (429, "too many requests"),
        (500, "answered 500: broken"),
    ],
)
def test_what_the_service_refuses_is_told(provisioning: OfFeed, status: int, said: str) -> None:
    body = b'{"message":"broken","code":"X","requestId":"r"}'

    def answer(question: str) -> str:
        provisioning.feed.answer(status, body)
        return "y"

    assert provisioning(ask=answer) == 1
    assert said in provisioning.err


def test_a_key_that_is_refused_is_told_before_anything_is_asked(
    provisioning: OfFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROVISION_KEY", "another-key")
    assert provisioning() == 1
    assert "refused the key" in provisioning.err


@pytest.mark.parametrize("secret", ["env:WEBHOOK_SECRET", "a-literal-secret", "aws-secret:name#key"])
def test_a_place_that_keeps_nothing_is_refused(
    provisioning: OfFeed, secret: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (
        f"--feed_url={provisioning.feed.url}",
        "--feed_api_key=env:PROVISION_KEY",
        f"--webhook_url={URL}",
    )
    assert provision.main(["feed", *flags, f"--webhook_secret={secret}"]) == 2
    said = capsys.readouterr().err
    assert "--webhook_secret: " in said
    assert "a-literal-secret" not in said
    assert provisioning.feed.requests == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "argument 1 says what is to be provisioned: feed"),
        (["hunter2"], "argument 1 says what is to be provisioned: feed"),
        (["feed"], "--feed_api_key: is missing"),
        (["feed", "--feed_api_key=env:PROVISION_KEY"], "--webhook_url: is missing"),
        (
            ["feed", "--feed_api_key=env:PROVISION_KEY", f"--webhook_url={URL}"],
            "--webhook_secret: is missing",
        ),
        (["feed", "--webhook_url=https://e.test/#x"], "--webhook_url: must"),
    ],
)
@pytest.mark.usefixtures("feed")
def test_wrong_parameters_are_exit_2(argv: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert provision.main(argv) == 2
    said = capsys.readouterr().err
    assert line in said
    assert "hunter2" not in said


def test_the_jobs_own_command_line_will_do(provisioning: OfFeed, tmp_path: Path) -> None:
    job = (f"--files_dir={tmp_path / 'out'}", "--webhook_port=8788", "--splunk_hec_url=https://s.test")
    assert provisioning("--yes=true", *job) == 0


def test_help_says_what_it_does_and_its_flags(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        provision.main(["feed", "--help"])
    said = capsys.readouterr().out
    for flag in ("--yes", "--print", "--webhook_url", "--webhook_secret", "--feed_api_key", "--http_proxy"):
        assert f"  {flag} " in said
    assert "--splunk_hec_url" not in said
    assert provision.main(["--help"]) == 0
    assert "provision feed --help" in capsys.readouterr().out
