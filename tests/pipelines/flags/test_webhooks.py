"""The flags of the webhook receiver, and what they need."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.flags.settings import BadParameters, Settings, parse
from transforms.secret import EnvSecret, FileSecret

ENVIRON = {"KEY": "feed-key", "ONE": "webhook-secret-1", "TWO": "webhook-secret-2"}
ON = ("--webhook_port=8788", "--webhook_secret=env:ONE")


def parsed(tmp_path: Path, *flags: str, **environ: str) -> Settings:
    usual = ("--feed_api_key=env:KEY", f"--files_dir={tmp_path / 'out'}", f"--state_dir={tmp_path / 'state'}")
    return parse([*usual, *flags], {**ENVIRON, **environ})


def refused(tmp_path: Path, *flags: str) -> str:
    with pytest.raises(BadParameters) as raised:
        parsed(tmp_path, *flags)
    return "\n".join(raised.value.lines)


def test_they_are_off_by_themselves(tmp_path: Path) -> None:
    settings = parsed(tmp_path)
    assert (settings.webhook_port, settings.webhook_secret) == (0, ())
    assert (settings.webhook_host, settings.webhook_path) == ("127.0.0.1", "/")
    assert (settings.webhook_max_bytes, settings.webhook_allow_v1) == (1024**2, False)


def test_several_secrets_by_flag_or_by_environment(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("webhook-secret-3")
    both = (EnvSecret("ONE"), FileSecret(str(secret)))
    assert parsed(tmp_path, *ON, f"--webhook_secret=file:{secret}").webhook_secret == both
    given = parsed(tmp_path, "--webhook_port=1", GRANTEX_WEBHOOK_SECRET=f"^~^env:ONE~file:{secret}")
    assert given.webhook_secret == both


def test_ids_are_remembered_for_a_day_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    assert parsed(tmp_path).horizon == 3600
    assert parsed(tmp_path, *ON).horizon == 86_400
    assert parsed(tmp_path, *ON, "--dedupe_horizon=60").horizon == 60


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--webhook_port=8788",), "--webhook_secret: is missing, and --webhook_port needs it; for example"),
        (("--webhook_secret=env:ONE",), "--webhook_secret: needs --webhook_port, which switches webhooks on"),
        (("--webhook_path=/grantex",), "--webhook_path: needs --webhook_port"),
        (
            (*ON, "--webhook_secret=env:GONE"),
            "--webhook_secret: env:GONE: this environment variable is not set",
        ),
        ((*ON, "--status_port=8788"), "--webhook_port: is the port of --status_port"),
        ((*ON, "--webhook_path=grantex"), "--webhook_path: must be a path that begins with /"),
        ((*ON, "--webhook_max_bytes=1GiB"), "--webhook_max_bytes=1GiB: must be from 1000 to 10485760 bytes"),
        ((*ON, "--webhook_url=events.example.com"), "--webhook_url: must be a URL"),
        ((*ON, "--runner=PrismRunner"), "--webhook_port: is for one machine"),
        ((*ON, "--demo=true"), "--webhook_port: cannot be given with --demo=true"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path: Path, flags: tuple[str, ...], line: str) -> None:
    assert line in refused(tmp_path, *flags)


def test_switched_off_by_a_flag_the_others_may_stay(tmp_path: Path) -> None:
    settings = parsed(
        tmp_path, "--webhook_port=0", GRANTEX_WEBHOOK_SECRET="env:ONE", GRANTEX_WEBHOOK_PORT="8788"
    )
    assert settings.webhook_port == 0


def test_the_public_address_is_for_another_program_and_needs_nothing(tmp_path: Path) -> None:
    url = "https://events.example.com/grantex?second"
    assert parsed(tmp_path, f"--webhook_url={url}").webhook_url == url
