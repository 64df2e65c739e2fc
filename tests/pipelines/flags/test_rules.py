"""What a cluster refuses and ignores: one line each, before anything is submitted."""

from __future__ import annotations

import pytest

from pipelines.flags.settings import BadParameters, Settings, parse

ENVIRON = {"KEY": "0123456789abcdef"}
LETTERS = "--dead_letters=gs://bucket/dead_letters"
SUBSCRIPTION = "--pubsub_subscription=projects/my-project/subscriptions/events"
CLOUD = ["--project=p", "--region=r", "--temp_location=gs://bucket/tmp", "--sdk_container_image=i"]
DATAFLOW = ["--runner=DataflowRunner", *CLOUD]
KAFKA = "--kafka_bootstrap_servers=k:9092"
FEED = "--feed_api_key=env:KEY"


def faults(*argv: str, **environ: str) -> list[str]:
    with pytest.raises(BadParameters) as raised:
        parse(argv, {**ENVIRON, **environ})
    return raised.value.lines


def accepted(*argv: str, **environ: str) -> Settings:
    return parse(argv, {**ENVIRON, **environ})


@pytest.mark.parametrize("runner", ["FlinkRunner", "PortableRunner", "PrismRunner"])
def test_a_cluster_needs_a_place_for_dead_letters(runner: str) -> None:
    assert faults(f"--runner={runner}", FEED, KAFKA) == [
        f"--dead_letters: is missing, and {runner} needs it; for example --dead_letters=gs://my-bucket/dead_letters"
    ]
    assert (
        accepted(f"--runner={runner}", FEED, KAFKA, "--dead_letters=/shared/letters").dead_letters
        == "/shared/letters"
    )
    assert not accepted(f"--runner={runner}", FEED, KAFKA, LETTERS).in_process


def test_dataflows_workers_have_no_place_of_their_own() -> None:
    assert accepted(*DATAFLOW, FEED, KAFKA, "--dead_letters=s3://bucket/x/").dead_letters == "s3://bucket/x"
    assert faults(*DATAFLOW, FEED, KAFKA, "--dead_letters=/shared/letters") == [
        "--dead_letters: must begin with gs:// or s3://; for example --dead_letters=gs://my-bucket/dead_letters"
    ]
    assert faults(*DATAFLOW, FEED, KAFKA, "--dead_letters=gs://") == [
        "--dead_letters: must name a bucket after ://; the default is <state_dir>/dead_letters"
    ]


@pytest.mark.parametrize(
    "argument", ["--state_dir=./x", "--files_dir=./x", "--forget_destination=x", "--demo=true"]
)
def test_what_is_for_one_machine_is_refused(argument: str) -> None:
    name = argument.partition("=")[0]
    assert (
        f"{name}: is for one machine (--runner=DirectRunner); leave it out with --runner=DataflowRunner"
        in faults(*DATAFLOW, FEED, KAFKA, LETTERS, argument)
    )


def test_what_has_no_effect_is_warned_about() -> None:
    settings = accepted(
        *DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, "--journal_max_bytes=2GiB", GRANTEX_STATUS_PORT="0"
    )
    assert settings.warnings == (
        "--journal_max_bytes: is for one machine, DataflowRunner does not use it",
        "GRANTEX_STATUS_PORT: is for one machine, DataflowRunner does not use it",
    )


@pytest.mark.parametrize("interval", [(), ("--checkpointing_interval=-1",)])
def test_a_job_on_flink_that_would_keep_no_checkpoints_is_warned_about(interval: tuple[str, ...]) -> None:
    given = ("--runner=FlinkRunner", FEED, KAFKA, LETTERS)
    [warning] = accepted(*given, *interval).warnings
    assert warning.startswith("--checkpointing_interval: without it Flink keeps no checkpoints")
    assert accepted(*given, *interval, "--checkpointing_interval=3000").warnings == ()
    assert accepted("--runner=PrismRunner", FEED, KAFKA, LETTERS).warnings == ()


def test_a_subscription_takes_the_place_of_the_feed() -> None:
    assert accepted(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS).feed_api_key is None
    assert faults(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, FEED, "--feed_types=a") == [
        "--feed_api_key: has no meaning beside --pubsub_subscription; leave one out",
        "--feed_types: has no meaning beside --pubsub_subscription; leave one out",
    ]
    assert faults("--runner=FlinkRunner", SUBSCRIPTION, KAFKA, LETTERS) == [
        "--pubsub_subscription: only --runner=DataflowRunner can read from Pub/Sub; elsewhere read the feed"
    ]


def test_defaults_that_a_form_hands_over_do_no_harm() -> None:
    prefilled = ["--feed_url=https://api.grantex.dev", "--feed_connections=2", "--splunk_index=main"]
    accepted(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, *prefilled, "--bigquery_max_age=5")
    assert faults(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, "--splunk_index=other") == [
        "--splunk_index: needs --splunk_hec_url, which switches Splunk HEC on"
    ]


def test_a_literal_secret_is_refused() -> None:
    [line] = faults(*DATAFLOW, "--feed_api_key=0123-literal", KAFKA, LETTERS)
    assert line.startswith("--feed_api_key: a literal secret works on one machine only")
    assert "0123-literal" not in line
    [line] = faults(
        *DATAFLOW,
        "--feed_api_key=secret:projects/p/secrets/s",
        KAFKA,
        LETTERS,
        "--kafka_config=sasl.password=0123",
    )
    assert line.startswith("--kafka_config: a literal secret")


def test_dataflow_needs_to_know_where_and_with_what() -> None:
    given = [SUBSCRIPTION, KAFKA, LETTERS]
    assert [line.partition(":")[0] for line in faults("--runner=DataflowRunner", *given)] == [
        "--project",
        "--region",
        "--temp_location",
        "--sdk_container_image",
    ]
    accepted("--runner=DataflowRunner", *given, *CLOUD[:3], WORKER_IMAGE="example.com/image:1")
    accepted("--runner=DataflowRunner", *given, *CLOUD[:3], "--setup_file=./setup.py")
    assert faults(*DATAFLOW[:3], "--temp_location=/tmp/x", CLOUD[3], *given) == [
        "--temp_location: must begin with gs:// (one of Beam's own flags)"
    ]


@pytest.mark.parametrize(
    ("argument", "line"),
    [
        (
            "--experiments=use_multiple_sdk_containers",
            "--experiments=use_multiple_sdk_containers: leave it out",
        ),
        (
            "--dataflow_service_options=streaming_mode_at_least_once",
            "--dataflow_service_options=streaming_mode_at_least_once: leave",
        ),
        *(
            (f"--{flag}={asked}", f"--{flag}={asked.split(',')[-1]}: leave it out; ")
            for flag in ("experiments", "experiment", "dataflow_service_options", "dataflow_service_option")
            for asked in (
                "streaming_mode_at_least_once",
                "other,streaming_mode_at_least_once",
                "enable_prime",
                "min_num_workers=1",
                "disable_runner_v2",
                "disable_runner_v2_until_2023",
                "use_multiple_sdk_containers",
            )
        ),
        (
            "--autoscaling_algorithm=THROUGHPUT_BASED",
            "--autoscaling_algorithm=THROUGHPUT_BASED: must be NONE",
        ),
        ("--max_num_workers=3", "--max_num_workers=3: must be the same as --num_workers=2"),
    ],
)
def test_what_contradicts_the_job_is_refused(argument: str, line: str) -> None:
    [found] = faults(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, "--num_workers=2", argument)
    assert found.startswith(line.replace("experiment=", "experiments=").replace("option=", "options="))


@pytest.mark.parametrize(
    "flags",
    [
        ["--s3_bucket=archive", "--s3_max_bytes=500000000"],
        ["--splunk_hec_url=https://s.test", "--splunk_hec_token=env:KEY", "--splunk_max_bytes=65MB"],
        [KAFKA, "--kafka_max_bytes=1GB"],
    ],
)
def test_a_batch_is_no_larger_than_what_a_cluster_keeps(flags: list[str]) -> None:
    name = flags[-1].partition("=")[0]
    assert faults("--runner=FlinkRunner", FEED, LETTERS, *flags) == [
        f"{name}: must be at most 64 MB with --runner=FlinkRunner: a cluster keeps each batch in one piece"
    ]
    accepted(FEED, *flags)
    accepted("--runner=FlinkRunner", FEED, LETTERS, *flags[:-1], f"{name}=64MB")


def test_a_batch_of_ones_own_destination_is_bounded_as_well() -> None:
    given = ("--runner=FlinkRunner", FEED, LETTERS)
    splunk = "transforms.write.splunk.destination:Splunk?name=big&hec_url=https://s.test&hec_token=env:KEY"
    own = f"--custom_destination={splunk}&max_bytes="
    assert faults(*given, f"{own}65MB") == [
        "--custom_destination: big: max_bytes must be at most 64 MB with --runner=FlinkRunner: a cluster "
        "keeps each batch in one piece"
    ]
    accepted(*given, f"{own}64MB")


def test_a_slip_in_an_event_type_is_warned_about() -> None:
    given = "grants.created,grant.revoked,Token.Issued,wallet.reloaded,grant.*,gx_live_of_a_person"
    beginning = "--feed_types: {} is no event type that this version knows; {}"
    exact = "types are compared letter by letter, without wildcards"
    assert accepted(FEED, KAFKA, f"--feed_types={given}").warnings == (
        beginning.format("grants.created", "did you mean grant.created?"),
        beginning.format("Token.Issued", "did you mean token.issued?"),
        beginning.format("grant.*", exact),
        beginning.format("one of them", exact),
    )


def test_several_values_fit_into_one_parameter() -> None:
    """A template's parameter, like a variable, can be given only once."""
    several = "^~^linger.ms=7~sasl.password=secret:projects/p/secrets/s~ssl.cipher.suites=a,b=c d"
    settings = accepted(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, f"--kafka_config={several}")
    assert [key for key, _ in settings["kafka_config"]] == ["linger.ms", "sasl.password", "ssl.cipher.suites"]
    assert settings["kafka_config"][2][1] == "a,b=c d"
    for wrong in ("^linger.ms=7", "^^a=b", "^~^a=b~", "^~^"):
        [line] = faults(*DATAFLOW, SUBSCRIPTION, KAFKA, LETTERS, f"--kafka_config={wrong}")
        assert line.startswith("--kafka_config: must be ^~^ONE~OTHER"), wrong


def test_a_standby_leaves_room_for_its_own_stream_and_a_replacement() -> None:
    three = accepted(FEED, KAFKA, "--standby=true", "--feed_connections=3")
    assert (three.standby, three.standby_bytes) == (True, 64_000_000)
    (line,) = faults(FEED, KAFKA, "--standby=true", "--feed_connections=4")
    assert line.startswith("--feed_connections: must be at most 3 with --standby=true")
    assert not accepted(FEED, KAFKA, "--feed_connections=5").standby


def test_a_cluster_has_no_standby() -> None:
    (line,) = faults("--runner=FlinkRunner", FEED, KAFKA, LETTERS, "--standby=true")
    assert line.startswith("--standby: is for one machine")
