"""The command line as a whole: flags, environment, rules between them, help and the README's table."""

# ruff: noqa: E501 (messages in full)

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from pipelines.flags import command_line
from pipelines.flags.destinations import destinations, feed_settings
from pipelines.flags.parameter import Parameter
from pipelines.flags.settings import PARAMETERS, BadParameters, Settings, parse
from transforms.batch import BatchPolicy
from transforms.secret import EnvSecret, LiteralSecret

ROOT = Path(__file__).parents[3]
KEY = "gx_live_Zx81-not-for-anyone"
TOKEN = "b5a79aad-d822-46cc-80d1-819f80d7bfb0"
ENVIRON = {"FEED_KEY": KEY, "SPLUNK_TOKEN": TOKEN}
FEED = ["--feed_api_key=env:FEED_KEY"]
SPLUNK = ["--splunk_hec_url=https://splunk.example.com:8088", "--splunk_hec_token=env:SPLUNK_TOKEN"]
FIRSTS = list(dict.fromkeys(each.group.first for each in PARAMETERS.values() if each.group.first))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def faults(*argv: str, **environ: str) -> list[str]:
    with pytest.raises(BadParameters) as raised:
        parse(argv, {**ENVIRON, **environ})
    assert str(raised.value) == "\n".join(raised.value.lines)
    for line in raised.value.lines:
        assert KEY not in line
        assert TOKEN not in line
    return raised.value.lines


def test_a_run_with_one_destination_has_typed_values_and_defaults() -> None:
    settings = parse([*FEED, *SPLUNK, "--splunk_max_age", "0.2"], ENVIRON)
    assert settings.feed_url == "https://api.grantex.dev"
    assert settings.feed_api_key == EnvSecret("FEED_KEY")
    assert settings.feed_types == ()
    assert settings["splunk_hec_url"] == "https://splunk.example.com:8088"
    assert settings["files_dir"] is None
    assert settings.state_dir == Path("state")
    assert settings.dead_letters_place == "state/dead_letters"
    assert parse([*FEED, *SPLUNK, "--dead_letters=gs://b/x/"], ENVIRON).dead_letters_place == "gs://b/x"
    assert settings.journal_max_bytes == 10 * 1024**3
    assert destinations(settings)[0].policy == BatchPolicy(500, 1_000_000, 0.2)
    assert settings.given == {"feed_api_key", "splunk_hec_url", "splunk_hec_token", "splunk_max_age"}
    assert settings.beam_args == []
    assert settings.warnings == ()


@pytest.mark.parametrize("name", ["bigquery", "s3", "datadog", "splunk", "kafka", "files"])
def test_a_destination_has_the_same_defaults_here_as_in_anyones_pipeline(name: str) -> None:
    destination = importlib.import_module(f"transforms.write.{name}.destination")
    policy = [Settings()[f"{name}_{end}"] for end in ("max_events", "max_bytes", "max_age")]
    assert BatchPolicy(*policy) == destination.POLICY


def test_flags_win_over_the_environment_even_over_a_wrong_one() -> None:
    environ = {**ENVIRON, "GRANTEX_FILES_DIR": "./out", "GRANTEX_WINDOW_SIZE": "wrong"}
    settings = parse([*FEED, "--window_size=60"], environ)
    assert settings.window_size == 60
    assert settings["files_dir"] == "out"


def test_several_names_come_between_commas_or_by_repeating() -> None:
    settings = parse([*FEED, *SPLUNK, "--forget_destination=a,b", "--forget_destination=c"], ENVIRON)
    assert settings.forget_destination == ("a", "b", "c")
    assert parse([*FEED, *SPLUNK], {**ENVIRON, "GRANTEX_FEED_TYPES": "x, y"}).feed_types == ("x", "y")


def test_every_fault_is_told_at_once_in_one_line_each(tmp_path: Path) -> None:
    environ = {"GRANTEX_FEED_TYPE": "a"}
    assert faults(
        "--spunk_index=main",
        "--feed_url=grantex",
        "--files_dir=./out",
        "--files_max_events=-3",
        "--ca_file=/nowhere/ca.pem",
        "--feed_api_key=env:MISSING",
        "--splunk_index=main",
        **environ,
    ) == [
        "--spunk_index: unknown flag; did you mean --splunk_index?",
        "GRANTEX_FEED_TYPE: unknown setting; did you mean GRANTEX_FEED_TYPES?",
        "--feed_url: must be a URL that begins with https:// or http:// and a host; "
        "the default is https://api.grantex.dev",
        "--files_max_events=-3: must be at least 1; the default is 10000",
        "--ca_file: the file cannot be read (No such file or directory); it must be a PEM file with a certificate",
        "--splunk_index: needs --splunk_hec_url, which switches Splunk HEC on",
        "--feed_api_key: env:MISSING: this environment variable is not set",
    ]


def test_with_nothing_given_what_is_needed_is_said() -> None:
    firsts = " or ".join(f"--{first}" for first in FIRSTS)
    assert faults() == [
        "--feed_api_key: is missing, and the feed needs it (--demo=true does not); "
        "for example --feed_api_key=env:FEED_KEY",
        f"{firsts}: no destination is given; give at least one, or --demo=true to look around",
    ]
    assert FIRSTS == [
        "bigquery_table",
        "s3_bucket",
        "gcs_bucket",
        "datadog_api_key",
        "splunk_hec_url",
        "kafka_bootstrap_servers",
        "pubsub_topic",
        "files_dir",
        "custom_destination",
    ]


def test_a_destination_without_its_token_is_refused() -> None:
    assert faults(*FEED, SPLUNK[0]) == [
        "--splunk_hec_token: is missing, and --splunk_hec_url needs it; "
        "for example --splunk_hec_token=env:SPLUNK_TOKEN"
    ]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        ("--feed-url=http://127.0.0.1:1", "--feed-url: unknown flag; did you mean --feed_url?"),
        ("--Feed_Url=http://127.0.0.1:1", "--Feed_Url: unknown flag; did you mean --feed_url?"),
        ("--hec_token=3", "--hec_token: unknown flag; did you mean --splunk_hec_token?"),
        ("--window=3", "--window: unknown flag; did you mean --window_size?"),
        ("--num_worker=3", "--num_worker: unknown flag; did you mean --num_workers?"),
        ("--zzzz=3", "--zzzz: unknown flag; --help lists all flags"),
        (f"--splunk_hec_token{TOKEN}", "--splunk_hec_token…: unknown flag"),
        (f"--splunk_hec_token:{TOKEN}", "--splunk_hec_token…: unknown flag"),
        (f"--{TOKEN}=1", "argument 4: unknown flag; --help lists all flags"),
        (TOKEN, "argument 4 is not a flag; every setting is --name=value"),
        ("-v", "argument 4 is not a flag; every setting is --name=value"),
        ("--", "argument 4 is not a flag; every setting is --name=value"),
        ("--window_size", "--window_size: needs a value, such as --window_size=300"),
        ("--splunk_index=", "--splunk_index: needs a value; the default is main"),
        (f"--splunk_index={TOKEN.upper()}", "--splunk_index: must be lower-case letters"),
        ("--runner=SparkRunner", "--runner=SparkRunner: must be one of DirectRunner, DataflowRunner, FlinkRunner"),
        ("--pubsub_topic=events", "--pubsub_topic: must be projects/PROJECT/topics/TOPIC; for example"),
        ("--dead_letters=gs://", "--dead_letters: must name a bucket after ://"),
        ("--pubsub_subscription=projects/p-r-o/subscriptions/s-u-b", "--pubsub_subscription: is read on Dataflow"),
        ("--feed_transport=ws", "--feed_transport: must be one of sse, websocket, both; the default is sse"),
        ("--log_level=LOUD", "--log_level: must be one of DEBUG, INFO, WARNING, ERROR; the default is INFO"),
        ("--num_workers=few", "--num_workers: Beam does not accept this value (one of Beam's own flags)"),
        ("--num_workers", "--num_workers: needs a value (one of Beam's own flags)"),
        ("--streaming=maybe", "--streaming: must be true or false (one of Beam's own flags)"),
        ("--status_port=70000", "--status_port=70000: must be from 0 to 65535; the default is 8787"),
        ("--forget_destination=splunk", "--forget_destination=splunk: is still switched on by --splunk_hec_url"),
    ],
)  # fmt: skip
def test_a_wrong_argument_gets_one_line(argument: str, line: str) -> None:
    [found] = faults(*FEED, *SPLUNK, argument)
    assert found.startswith(line)


def test_a_flag_given_twice_is_refused() -> None:
    assert faults(*FEED, *SPLUNK, *FEED) == ["--feed_api_key: is given more than once; give it once"]


def test_the_value_of_an_unknown_flag_is_neither_shown_nor_taken_for_an_argument() -> None:
    assert faults(*FEED, *SPLUNK, "--zzzz", KEY) == ["--zzzz: unknown flag; --help lists all flags"]


def test_both_transports_need_two_connections() -> None:
    given = [*FEED, *SPLUNK, "--feed_transport=both"]
    assert faults(*given, "--feed_connections=1") == [
        "--feed_connections: 1 cannot be both transports; give 2 or more, or one --feed_transport"
    ]
    for accepted in (given, [*given, "--feed_connections=2"]):
        settings = parse(accepted, ENVIRON)
        feed = feed_settings(settings)
        assert feed.connections(settings.feed_connections) == 2
        assert [feed.of(0).transport, feed.of(1).transport] == ["sse", "websocket"]


def test_a_literal_secret_is_taken_out_of_the_faults_of_other_flags() -> None:
    lines = faults("--feed_api_key=/literal/secret/9", "--files_dir=./out", "--ca_file=/literal/secret/9")
    assert not any("literal/secret" in line for line in lines)


def test_a_variable_that_a_secret_refers_to_is_no_unknown_setting() -> None:
    environ = {
        "GRANTEX_HEC_TOKEN": KEY,
        "GRANTEX_FEED_API_KEY": "env:GRANTEX_HEC_TOKEN",
        "GRANTEX_FILES_DIR": "out",
    }
    assert parse([], environ).feed_api_key == EnvSecret("GRANTEX_HEC_TOKEN")
    assert faults("--feed_api_key=env:FEED_KEY", **environ) == [
        "GRANTEX_HEC_TOKEN: unknown setting; did you mean GRANTEX_SPLUNK_HEC_TOKEN?"
    ]


def test_beams_own_flags_are_passed_on_as_beam_takes_them() -> None:
    beam = ["--streaming=true", "--no_auth=false", "--num_workers", "3", "--experiments=a", "--experiments=b"]
    settings = parse([*FEED, *SPLUNK, *beam], ENVIRON)
    assert settings.beam_args == ["--streaming", "--num_workers=3", "--experiments=a", "--experiments=b"]
    # It has two flags, of which each says the opposite of the other.
    [private] = parse([*FEED, *SPLUNK, "--use_public_ips=false"], ENVIRON).beam_args
    assert private == "--no_use_public_ips"
    assert parse([*FEED, *SPLUNK, "--no_use_public_ips=false"], ENVIRON).beam_args == ["--use_public_ips"]

    from apache_beam.options.pipeline_options import PipelineOptions, WorkerOptions

    assert PipelineOptions(settings.beam_args).view_as(WorkerOptions).num_workers == 3


def test_options_of_the_flink_runner_are_known_where_it_may_be_and_nowhere_else() -> None:
    given = ["--checkpointing_interval=3000", "--savepoint_path", "s3://b/a b", "--object_reuse=true"]
    letters = "--dead_letters=s3://b/l"
    for runner in ("PortableRunner", "FlinkRunner"):
        settings = parse([*FEED, *SPLUNK, letters, *given, f"--runner={runner}"], ENVIRON)
        assert settings.beam_args == [given[0], "--savepoint_path=s3://b/a b", "--object_reuse"]
        by_environment = parse([*FEED, *SPLUNK, letters, *given], {**ENVIRON, "GRANTEX_RUNNER": runner})
        assert by_environment.beam_args == settings.beam_args
    assert faults(*FEED, *SPLUNK, letters, given[0], "--runner=PrismRunner", **ENVIRON) == [
        "--checkpointing_interval: unknown flag; --help lists all flags"
    ]
    assert faults(
        *FEED, *SPLUNK, letters, "--runner=FlinkRunner", "--checkpointing_interval=3s", **ENVIRON
    ) == ["--checkpointing_interval: Beam does not accept this value (one of Beam's own flags)"]
    lossy = "--shutdown_sources_after_idle_ms=1"
    assert faults(*FEED, *SPLUNK, letters, "--runner=FlinkRunner", lossy, **ENVIRON) == [
        "--shutdown_sources_after_idle_ms: unknown flag; --help lists all flags"
    ]


def test_only_the_runner_shares_its_name_with_beam() -> None:
    assert PARAMETERS.keys() & command_line.beam_flags().keys() == {"runner"}


@pytest.mark.slow
def test_beam_is_not_imported_for_our_own_flags() -> None:
    program = (
        "import sys; from pipelines.flags.settings import parse; parse(['--demo=true'], {}); "
        "sys.exit(any(name.split('.')[0] == 'apache_beam' for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_the_demo_needs_nothing_and_takes_other_settings() -> None:
    assert parse(["--demo=true"], {}).demo
    settings = parse(["--demo", "true", "--splunk_max_events=7", "--files_dir=./here"], {})
    assert settings["splunk_max_events"] == 7
    assert settings["files_dir"] == "here"


def test_the_demo_brings_its_own_addresses_and_secrets() -> None:
    argv = ["--demo=true", *FEED, *SPLUNK, "--feed_url=https://x", "--state_dir=./x", "--window_size=-1"]
    lines = faults(*argv)
    assert lines[0].startswith("--window_size=-1: must be more than 0")
    assert [line.partition(":")[0] for line in lines[1:]] == [
        "--feed_url",
        "--feed_api_key",
        "--state_dir",
        "--splunk_hec_url",
        "--splunk_hec_token",
    ]
    assert all("cannot be given with --demo=true" in line for line in lines[1:])


def test_an_unclear_demo_is_the_only_fault() -> None:
    assert faults("--demo=yes") == ["--demo: must be true or false; the default is false"]


def test_the_certificate_authority_must_be_a_pem_file(tmp_path: Path) -> None:
    base = [*FEED, *SPLUNK]
    assert parse([*base, f"--ca_file={certifi.where()}"], ENVIRON).ca_file == Path(certifi.where())
    (tmp_path / "ca.pem").write_text("not a certificate")
    assert "holds no certificate" in faults(*base, "--ca_file=./ca.pem")[0]
    assert (
        "Is a directory" in faults(*base, "--ca_file=.")[0] or "holds no" in faults(*base, "--ca_file=.")[0]
    )
    [line] = faults(*base, GRANTEX_CA_FILE="/nowhere")
    assert line.startswith("GRANTEX_CA_FILE: the file cannot be read")


@pytest.mark.parametrize("name", ["state_dir", "dead_letters", "files_dir"])
def test_a_directory_must_be_writable(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    base = [*FEED, *SPLUNK]
    fitting = "it must be a directory that this user may write"
    assert faults(*base, f"--{name}=./file") == [f"--{name}: not a directory; {fitting}"]
    assert faults(*base, f"--{name}=./file/a/b") == [f"--{name}: a file is in the way; {fitting}"]
    parse([*base, f"--{name}=./new/a/b"], ENVIRON)
    assert not (tmp_path / "new").exists()


def test_a_directory_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def access(path: Path, mode: int) -> bool:  # root may write everywhere, so a real one proves nothing
        asked.append(path)
        return False

    monkeypatch.setattr(os, "access", access)
    [line] = faults(*FEED, *SPLUNK, "--state_dir=./a/b")
    assert line == "--state_dir: no permission to write; it must be a directory that this user may write"
    assert asked == [tmp_path]


@pytest.mark.parametrize(
    ("state", "files"),
    [("./x", "./x"), ("./x", "./x/files"), ("./x/state", "./x"), ("./x", "./y/../x/files")],
)
def test_the_archive_and_the_state_lie_apart(state: str, files: str) -> None:
    assert faults(*FEED, f"--state_dir={state}", f"--files_dir={files}") == [
        "--files_dir: must be apart from --state_dir, neither inside it nor around it"
    ]


def test_dead_letters_lie_apart_from_the_archive() -> None:
    [line] = faults(*FEED, "--files_dir=./out", "--dead_letters=./out/dead")
    assert line == "--files_dir: must be apart from --dead_letters, neither inside it nor around it"


def test_plain_http_to_another_machine_is_warned_about() -> None:
    local = ["--feed_url=http://localhost:1", "--splunk_hec_url=http://127.0.0.1:2", SPLUNK[1]]
    assert parse([*FEED, *local], ENVIRON).warnings == ()
    [warning] = parse([*FEED, "--splunk_hec_url=http://10.0.0.7:8088", SPLUNK[1]], ENVIRON).warnings
    assert warning.startswith("--splunk_hec_url: http:// sends events and the secret unencrypted to 10.0.0.7")


def test_a_literal_secret_never_shows() -> None:
    settings = parse([f"--feed_api_key={KEY}", "--files_dir=./out", "--s3_session_token=hunter22"], {})
    assert settings.feed_api_key == LiteralSecret(KEY)
    assert len(settings.warnings) == 1
    for shown in (repr(settings), str(settings), *settings.warnings):
        assert KEY not in shown
        assert "hunter22" not in shown
    assert "feed_api_key=[secret]" in repr(settings)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Settings().window_size = 1  # type: ignore[misc]


@pytest.mark.parametrize("parameter", PARAMETERS.values(), ids=PARAMETERS)
def test_a_default_is_what_is_read_from_its_own_words(parameter: Parameter) -> None:
    if parameter.default in (None, "", ()) or parameter.default_text:
        return
    read = parameter.value(parameter.default_in_words)
    assert (read, type(read)) == (parameter.default, type(parameter.default))
