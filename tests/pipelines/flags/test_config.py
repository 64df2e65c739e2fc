"""--config: what a YAML file says is what flags would; every mistake in it is one line with its number."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
import yaml
from google.api_core.exceptions import Forbidden, InternalServerError
from google.auth.exceptions import DefaultCredentialsError, RefreshError, TransportError

from pipelines import config
from pipelines.flags import config as config_file
from pipelines.flags import config_schema
from pipelines.flags.destinations import destinations
from pipelines.flags.settings import BadParameters, Settings, parse
from tests.pipelines.flags.refusing import ENVIRON
from transforms.secret import EnvSecret
from transforms.write.contract import name_of
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

ROOT = Path(__file__).parents[3]
TWO_OF_EACH = """\
feed_api_key: env:FEED_KEY
feed_types: [grant.created, token.issued]
destinations:
  splunk_eu: {kind: splunk, hec_url: "https://eu:8088", hec_token: env:DD_KEY, max_age: 1}
  splunk:
    hec_url: https://us:8088
    hec_token: env:DD_KEY
    index: no
  archive: {kind: s3, bucket: audit, compression: zstd}
  cold: {kind: s3, bucket: cold-audit, storage_class: GLACIER_IR}
  kafka:
    bootstrap_servers: one:9092
    config: {security.protocol: SASL_SSL, sasl.password: env:DD_KEY}
"""


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def written(tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "grantex.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"--config={file}"


def read(tmp_path: Path, text: str, *argv: str, **environ: str) -> Settings:
    return parse([written(tmp_path, text), *argv], {**ENVIRON, **environ})


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    with pytest.raises(BadParameters) as raised:
        parse([written(tmp_path, text), "--feed_api_key=env:FEED_KEY", "--files_dir=out"], ENVIRON)
    return raised.value.lines


def test_what_another_program_has_for_itself_may_stand_in_the_file(tmp_path: Path) -> None:
    text = "splunk_management_url: https://splunk.test:8089\nagainst: receipts\nfiles_dir: out\n"
    settings = read(tmp_path, text, "--feed_api_key=env:FEED_KEY")
    assert settings.given == {"feed_api_key", "files_dir", "config"}
    (line,) = faults(tmp_path, "splunk_managment_url: https://splunk.test:8089\n")
    assert line == "grantex.yaml:1: splunk_managment_url: is no setting; did you mean splunk_management_url?"


def test_two_splunks_and_two_buckets(tmp_path: Path) -> None:
    settings = read(tmp_path, TWO_OF_EACH)
    found = {name_of(each): each for each in destinations(settings)}
    assert list(found) == ["splunk", "kafka", "splunk_eu", "archive", "cold"]
    eu, us, cold = found["splunk_eu"], found["splunk"], found["cold"]
    assert isinstance(eu, Splunk)
    assert (eu.url, eu.policy.max_age, eu.token) == ("https://eu:8088", 1.0, EnvSecret("DD_KEY"))
    assert isinstance(us, Splunk)
    assert (us.url, us.index, us.policy.max_age) == ("https://us:8088", "no", 2.0)
    assert isinstance(cold, S3)
    assert (cold.bucket, cold.storage_class) == ("cold-audit", "GLACIER_IR")
    assert settings.feed_types == ("grant.created", "token.issued")
    assert settings["kafka_config"] == (
        ("security.protocol", "SASL_SSL"),
        ("sasl.password", EnvSecret("DD_KEY")),
    )
    assert settings.warnings == ()


def test_the_same_as_flags(tmp_path: Path) -> None:
    text = "feed_api_key: env:FEED_KEY\ndestinations: {files: {dir: out, max_age: 7}}\n"
    by_file = read(tmp_path, text)
    by_flags = parse(["--feed_api_key=env:FEED_KEY", "--files_dir=out", "--files_max_age=7"], ENVIRON)
    assert destinations(by_file) == destinations(by_flags)
    flat = read(tmp_path, "feed_api_key: env:FEED_KEY\nfiles_dir: out\nfiles_max_age: 7\n")
    assert destinations(flat) == destinations(by_flags)


def test_flags_win_over_the_environment_and_both_over_the_file(tmp_path: Path) -> None:
    text = "feed_api_key: env:FEED_KEY\nfiles_dir: out\nwindow_size: 10\nstatus_port: 11\nlog_level: DEBUG\n"
    settings = read(tmp_path, text, "--window_size=30", GRANTEX_WINDOW_SIZE="20", GRANTEX_STATUS_PORT="21")
    assert (settings.window_size, settings.status_port, settings.log_level) == (30.0, 21, "DEBUG")


def test_a_variable_that_only_the_file_refers_to_is_known(tmp_path: Path) -> None:
    text = TWO_OF_EACH.replace("env:DD_KEY, max_age", "env:GRANTEX_HEC_EU, max_age")
    settings = read(tmp_path, text, GRANTEX_HEC_EU="0123456789abcdef")
    assert len(destinations(settings)) == 5


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("windw_size: 3", "grantex.yaml:1: windw_size: is no setting; did you mean window_size?"),
        ("\n# why\nwindow_size: long", "grantex.yaml:3: window_size: must be a number"),
        ("window_size:", "grantex.yaml:1: window_size: has no value; leave the line out"),
        ("window_size: [1]", "grantex.yaml:1: window_size: is a list, and must be one value"),
        ("window_size: {a: 1}", "grantex.yaml:1: window_size: is a mapping, and must be one value"),
        ("window_size: 3\nwindow_size: 4", "grantex.yaml:2: window_size: is given twice, first in line 1"),
        ("- window_size", "grantex.yaml:1: the file: must be a mapping"),
        ("a: b: c", "grantex.yaml:1: is no YAML: mapping values are not allowed here"),
        ("a: [1", "grantex.yaml:1: is no YAML: "),
        ("window_size: 3\n\tx: 1", "grantex.yaml:2: is no YAML: "),
        ("", "grantex.yaml: is empty"),
        (b"window_size: \xff", "is not UTF-8"),
        (b"window_size: \x07", "grantex.yaml: is no YAML: it has characters that are not printable"),
        ("config: other.yaml", "grantex.yaml:1: config: cannot name another file"),
        ("destinations: [splunk]", "grantex.yaml:1: destinations: must be a mapping"),
        ("destinations:\n  audit: yes", "grantex.yaml:2: destinations.audit: must be a mapping"),
        (
            "destinations:\n  audit: {bucket: x}",
            "grantex.yaml:2: destinations.audit: needs a kind: bigquery, ",
        ),
        (
            "destinations:\n  audit: {kind: splnk}",
            "grantex.yaml:2: destinations.audit.kind: is none of bigquery, ",
        ),
        (
            "destinations:\n  a: {kind: 'nowhere.at:All'}",
            "grantex.yaml:2: destinations.a.kind: there is no module nowhere.at",
        ),
        (
            "destinations:\n  kafka: {kind: s3, bucket: audit}",
            "grantex.yaml:2: destinations.kafka: is the name of kafka itself; call it something else",
        ),
        (
            "destinations:\n  Audit: {kind: s3, bucket: audit}",
            "grantex.yaml:2: destinations.Audit: must be lower-case letters",
        ),
        (
            "destinations:\n  audit:\n    kind: s3\n    bucket: audit\n    prefx: a",
            "grantex.yaml:5: destinations.audit.prefx: is no setting; did you mean prefix?",
        ),
        (
            "destinations:\n  s3:\n    bucket: audit\n    colour: blue",
            "grantex.yaml:4: destinations.s3.colour: is no setting; there are bucket, prefix, ",
        ),
        ("destinations:\n  audit: {kind: s3}", "grantex.yaml:2: destinations.audit: needs bucket"),
        (
            "destinations:\n  audit:\n    kind: s3\n    bucket: audit\n    compression: zst",
            "grantex.yaml:5: destinations.audit.compression: must be one of gzip, zstd, none",
        ),
        (
            "destinations:\n  audit:\n    kind: s3\n    bucket: audit\n    external_id: some-id",
            "grantex.yaml:5: destinations.audit.external_id: needs role_arn",
        ),
        (
            "destinations:\n  s3:\n    bucket: audit\n    external_id: some-id",
            "grantex.yaml:4: destinations.s3.external_id: needs --s3_role_arn",
        ),
    ],
)
def test_every_mistake_is_one_line_with_its_number(tmp_path: Path, text: str | bytes, line: str) -> None:
    (found,) = faults(tmp_path, text)
    assert line in found
    assert line.startswith("grantex.yaml") is found.startswith("grantex.yaml")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    text = "windw_size: 3\nstatus_port: x\ndestinations:\n  a: {kind: s3, bukket: b, compression: zst}\n"
    assert [line.split(": ")[0] for line in sorted(faults(tmp_path, text))] == [
        "grantex.yaml:1",
        "grantex.yaml:2",
        "grantex.yaml:4",
        "grantex.yaml:4",
        "grantex.yaml:4",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "feed_api_key: gx_live_Zx81NotForAnyone\nx: 1",
        "gx_live_Zx81NotForAnyone: 1",
        "destinations: {a: {kind: splunk, hec_url: 'https://h', hec_token: Zx81NotForAnyoné}}",
        "destinations: {a: {kind: gx_Zx81NotForAnyone}}",
        "destinations: {gx-Zx81NotForAnyone: {kind: s3}}",
        "feed_api_key: [Zx81NotForAnyone]",
        "feed_api_key: {a: Zx81NotForAnyone",
        "feed_api_key: &Zx81NotForAnyone",
        "feed_api_key: *Zx81NotForAnyone",
        "feed_api_key: !Zx81NotForAnyone x\nb: 1",
    ],
)
def test_no_mistake_repeats_a_secret(tmp_path: Path, text: str) -> None:
    assert "Zx81" not in "\n".join(faults(tmp_path, text))


def test_a_literal_secret_in_a_file_for_everyone_is_warned_of(tmp_path: Path) -> None:
    text = (
        "feed_api_key: env:FEED_KEY\ndestinations:\n"
        "  splunk: {hec_url: 'https://h', hec_token: Zx81-literal-1}\n"
        "  eu: {kind: splunk, hec_url: 'https://e', hec_token: Zx81-literal-2}\n"
    )
    flag = written(tmp_path, text)
    (tmp_path / "grantex.yaml").chmod(0o640)
    assert parse([flag], ENVIRON).warnings == ()
    (tmp_path / "grantex.yaml").chmod(0o644)
    warnings = parse([flag], ENVIRON).warnings
    assert [line.partition(": a literal secret in a file that everyone")[0] for line in warnings] == [
        "grantex.yaml:3: destinations.splunk.hec_token",
        "grantex.yaml:4: destinations.eu",
    ]
    assert "Zx81" not in "".join(warnings)
    (tmp_path / "grantex.yaml").write_text(
        text.replace("Zx81-literal-1", "env:KEY").replace("Zx81-literal-2", "env:KEY")
    )
    assert parse([flag], {**ENVIRON, "KEY": "0123456789abcdef"}).warnings == ()


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere.yaml", "--config: nowhere.yaml cannot be read: No such file or directory"),
        (".", "--config: . cannot be read: Is a directory"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(place: str, why: str) -> None:
    with pytest.raises(BadParameters) as raised:
        parse([f"--config={place}", "--demo=true"], {})
    assert raised.value.lines == [why]


@pytest.mark.servers
def test_a_file_in_google_cloud_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.servers.gcs import running

    with running(tmp_path / "log") as storage:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", storage.endpoint)
        storage.create_bucket("settings")
        storage.put(
            "settings", "prod/grantex.yaml", b"feed_api_key: env:FEED_KEY\nfiles_dir: out\nwindow_size: 7\n"
        )
        settings = parse(["--config=gs://settings/prod/grantex.yaml"], ENVIRON)
        assert (settings.window_size, settings["files_dir"]) == (7.0, "out")
        storage.put("settings", "wrong.yaml", b"windw_size: 7")
        storage.put("settings", "large.yaml", b"#" * (config_file.MAX_BYTES + 1))
        for name, why in (
            ("wrong.yaml", "wrong.yaml:1: windw_size: is no setting; did you mean window_size?"),
            ("large.yaml", "--config: gs://settings/large.yaml has more than 1,000,000 bytes"),
            ("nowhere.yaml", "--config: gs://settings/nowhere.yaml cannot be read: NotFound: 404"),
        ):
            with pytest.raises(BadParameters) as raised:
                parse([f"--config=gs://settings/{name}", "--demo=true"], ENVIRON)
            assert raised.value.lines[0].startswith(why)
    monkeypatch.setattr(config_file, "PATIENCE", 0.1)
    with pytest.raises(BadParameters) as raised:
        parse(["--config=gs://settings/wrong.yaml", "--demo=true"], ENVIRON)
    assert "--config: gs://settings/wrong.yaml cannot be read: RetryError: " in raised.value.lines[0]
    assert raised.value.code == 1


@pytest.mark.parametrize(
    ("number", "code"),
    [(errno.EIO, 1), (errno.EMFILE, 1), (errno.ENOENT, 2), (errno.EACCES, 2), (errno.EISDIR, 2)],
)
def test_a_file_that_cannot_be_read_now_is_no_mistake_of_a_persons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    """Units start again on 1, and not on 2."""
    given = written(tmp_path, "feed_api_key: env:FEED_KEY\n")

    def fails(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "open", fails)
    with pytest.raises(BadParameters) as raised:
        parse([given], ENVIRON)
    assert raised.value.code == code
    assert f"cannot be read: {os.strerror(number)}" in raised.value.lines[0]
    assert len(raised.value.lines) == 1 or code == 2


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (TransportError("no route"), 1),
        (RefreshError("no metadata"), 2),
        (caused(RefreshError("no metadata"), TransportError("no route")), 1),
        (RefreshError("503", retryable=True), 1),
        (requests.exceptions.ConnectionError("refused"), 1),
        (requests.exceptions.SSLError("unknown authority"), 2),
        (DefaultCredentialsError("not found"), 2),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), 2),
        (PermissionError(errno.EACCES, "Permission denied"), 2),
        (OSError("Project was not passed"), 2),
        (InternalServerError("500"), 1),
        (Forbidden("403"), 2),
    ],
)
def test_what_google_is_asked_in_vain_for_starts_again_where_nobody_has_to_mend_it(
    monkeypatch: pytest.MonkeyPatch, raised: Exception, code: int
) -> None:
    def client(**_: object) -> None:
        raise raised

    monkeypatch.setattr("google.cloud.storage.Client", client)
    with pytest.raises(BadParameters) as refused:
        parse(["--config=gs://settings/grantex.yaml", "--demo=true"], ENVIRON)
    assert refused.value.code == code


def test_what_is_in_force_is_printed_as_a_file_that_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    flag = written(
        tmp_path, TWO_OF_EACH + "  own: {kind: splunk, hec_url: 'https://h', hec_token: Zx81-literal-1}\n"
    )
    assert config.main([flag, "--window_size=30"]) == 0
    printed = capsys.readouterr().out
    assert "window_size: 30  # --window_size\n" in printed
    assert "splunk_index: no  # grantex.yaml:8\n" in printed
    assert "    bucket: audit  # grantex.yaml:9\n" in printed
    assert "log_level: INFO  # default\n" in printed
    assert "Zx81" not in printed
    assert config.main([written(tmp_path, printed)]) == 0

    def values(text: str) -> list[str]:
        return [line.partition("  #")[0] for line in text.splitlines()]

    assert values(capsys.readouterr().out) == values(printed)


def test_the_schema_for_editors_is_what_is_committed_and_knows_what_is_read() -> None:
    schema = config_schema.schema()
    assert (ROOT / "docs/config.schema.json").read_text() == config_schema.text(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    assert list(validator.iter_errors(yaml.safe_load(TWO_OF_EACH))) == []
    wrong: Any = yaml.safe_load(TWO_OF_EACH.replace("compression: zstd", "compression: zst"))
    (error,) = validator.iter_errors(wrong)
    assert list(error.path) == ["destinations", "archive", "compression"]
    assert json.loads(config_schema.text(schema)) == schema


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["--log_lev"], "--log_level="),
        (["--log_level", "=", "D"], "DEBUG"),
        (["conf"], "config"),
        (["stream", "--splunk_hec_u"], "--splunk_hec_url="),
    ],
)
def test_bash_completes(capsys: pytest.CaptureFixture[str], words: list[str], offered: str) -> None:
    assert config.main(["--completion=bash"]) == 0
    script = capsys.readouterr().out
    script += f"COMP_WORDS=(grantex-beam {' '.join(words)}); COMP_CWORD={len(words)}; _grantex_beam\n"
    script += 'echo "${COMPREPLY[@]}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_other_shells_get_every_flag(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert config.main([f"--completion={shell}"]) == 0
    printed = capsys.readouterr().out
    for name in ("splunk_hec_url", "config", "webhook_port"):
        assert f"-l {name} " in printed or f"--{name}=[" in printed


def test_settings_are_checked_without_a_word_when_nothing_is_to_be_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    assert config.main([written(tmp_path, TWO_OF_EACH), "--print=false", "--schema=false"]) == 0
    assert capsys.readouterr().out == ""
    assert config.main([written(tmp_path, "window_size: x"), "--print=false"]) == 2
