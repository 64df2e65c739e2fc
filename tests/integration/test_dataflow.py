"""The job that Dataflow would get: launched as its launcher does, or submitted, against servers on loopback.

Nothing runs it; what can only be seen in a real project is listed in docs/dataflow.md.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import certifi
import pytest
from apache_beam.portability.api import beam_runner_api_pb2, standard_window_fns_pb2
from google.cloud.dataflow_v1beta3.types import Job

from tests.integration.rehearsal import (
    BUCKET,
    IMAGE,
    JOB_OBJECT,
    ROOT,
    Launcher,
    decoded,
    do_fns,
    install,
    launcher_arguments,
    parts,
    pipeline_of,
)
from tests.pipelines.example_destination import Audit
from tests.pipelines.test_stream import GOLDEN, labels
from tests.servers import dataflow, gcs
from tests.servers.authority import Authority
from transforms.batch import BatchPolicy
from transforms.feed.request import FeedSettings
from transforms.secret import AwsSecret, EnvSecret, FileSecret, GoogleSecret, Secret
from transforms.way_out import WayOut
from transforms.write.asked import Asked
from transforms.write.bigquery.destination import BigQuery
from transforms.write.contract import Destination
from transforms.write.datadog.destination import Datadog
from transforms.write.gcs.destination import GCS
from transforms.write.kafka.destination import Kafka
from transforms.write.keyed.attempts import DrainTime
from transforms.write.pubsub.destination import PubSub
from transforms.write.s3.destination import S3
from transforms.write.splunk.destination import Splunk

CA = certifi.where()


def way_out(filed: str) -> WayOut:
    """As the launch asks for it; certificate and key lie beside `filed`."""
    pair = [str(Path(filed).with_name(name)) for name in (CERTIFICATE, KEY)]
    return WayOut(None, CA, *pair)


CERTIFICATE, KEY = "client.pem", "client.key"
# Values that only a worker may ever see; here they are where the references point to all the same.
SECRETS = {
    "AUDIT_TOKEN": "audit-0f2b-for-nobodys-eyes",
    "KAFKA_PASSWORD": "kafka-91aa-for-nobodys-eyes",
    "SPLUNK_TOKEN": "splunk-77c3-for-nobodys-eyes",
    "PSEUDONYM_KEY": "pseudonyms-5d07-for-nobodys-eyes",
}
FILED = "filed-e4d1-for-nobodys-eyes"
AUDIT = "tests.pipelines.example_destination:Audit"
# Odd on purpose: whatever stands between a form and a DoFn must not touch it.
ODD = "a, b=\"c\" 'd' $HOME ^~^ {e} %2C é"
CLOUD_KEY = "projects/p/locations/eu/keyRings/r/cryptoKeys/k"
PARAMETERS = {
    "ca_file": CA,
    "client_certificate": "{place}/client.pem",
    "client_key": "{place}/client.key",
    "http_proxy": "",  # the launcher would go through it as well, and find nobody
    "preflight": "off",
    "validate_only": "false",
    "feed_url": "https://feed.example.com:8443/under/a/path",
    "feed_api_key": "secret:projects/my-project/secrets/grantex-api-key/versions/7",
    "feed_types": "grant.created, grant.revoked,a=b",
    "feed_transport": "sse",
    "feed_connections": "3",
    "window_size": "77.5",
    "drain_timeout": "33.5",
    "dedupe_horizon": "1234",
    "dead_letters": "gs://my-bucket/dead,letters=/x",
    "dead_letter_limit": "4321",
    "log_level": "WARNING",
    "http_compression": "none",
    "bigquery_table": "my-project:grantex.events",
    "bigquery_method": "storage_write",
    "bigquery_schema": "compatible",
    "bigquery_endpoint": "https://rest.example.com",
    "bigquery_storage_endpoint": "https://grpc.example.com",
    "s3_bucket": "my-archive",
    "s3_prefix": ODD,
    "s3_region": "eu-central-1",
    "s3_endpoint": "https://minio.example.com:9000",
    "s3_compression": "zstd",
    "s3_layout": "flat",
    "s3_role_arn": "arn:aws:iam::123456789012:role/a,b=c",
    "s3_external_id": "x,y=z",
    "s3_storage_class": "GLACIER_IR",
    "s3_kms_key": "alias/k",
    "gcs_bucket": "my-archive",
    "gcs_prefix": ODD,
    "gcs_layout": "flat",
    "gcs_endpoint": "https://storage.example.com",
    "gcs_compression": "zstd",
    "gcs_storage_class": "NEARLINE",
    "gcs_kms_key": CLOUD_KEY,
    "datadog_api_key": "file:{filed}",
    "datadog_site": "datadoghq.com",
    "datadog_endpoint": "https://proxy.example.com",
    "datadog_source": ODD,
    "datadog_host": ODD,
    "datadog_service": ODD,
    "datadog_tags": "env:production,team:identity",
    "datadog_too_old": "dead_letter",
    "splunk_hec_url": "https://splunk.example.com:8088",
    "splunk_hec_token": "env:SPLUNK_TOKEN",
    "splunk_index": "main_2",
    "splunk_index_by_type": "grant.*=identity,sso.[a-l]*=x-1",
    "splunk_source": ODD,
    "splunk_sourcetype": "_json,x=y",
    "splunk_host": "a, b",
    "splunk_acknowledge": "true",
    "kafka_bootstrap_servers": "a:9092,b:9092",
    "kafka_topic": "grantex.events_2",
    "kafka_config": "^|^security.protocol=SASL_SSL|sasl.mechanisms=PLAIN|sasl.username=aws-secret:k#user"
    '|sasl.password=env:KAFKA_PASSWORD|client.rack=a, b="c" ~ ^d',
    "pubsub_topic": "projects/my-project/topics/again",
    "pubsub_endpoint": "https://europe-west1-pubsub.googleapis.com",
    "custom_destination": f"^~^{AUDIT}?name=audit&url=https://a/?x%26y=z w&token=env:AUDIT_TOKEN"
    f"~{AUDIT}?name=other&url=u,v&token=secret:projects/p/secrets/s",
    "number_of_worker_harness_threads": "5",
    "sdk_container_image": "example.com/derived:9",
}
NAMES = ("bigquery", "s3", "gcs", "datadog", "splunk", "kafka", "pubsub")
POLICIES = {
    name: BatchPolicy(number, 1000 * number, number / 4) for number, name in enumerate(NAMES, start=101)
}
PARAMETERS["pseudonym_key"] = "env:PSEUDONYM_KEY"
for _name, _policy in POLICIES.items():
    PARAMETERS[f"{_name}_types"] = "grant.*,!*.[r-s]evoked"
    PARAMETERS[f"{_name}_pseudonymize"] = "data.principalId,data.a.b"
    PARAMETERS[f"{_name}_max_events"] = str(_policy.max_events)
    PARAMETERS[f"{_name}_max_bytes"] = str(_policy.max_bytes)
    PARAMETERS[f"{_name}_max_age"] = str(_policy.max_age)
# The launch's own settings, which are no parameters.
ENVIRONMENT = {
    "num_workers": "3",
    "max_num_workers": "3",
    "machine_type": "n2-standard-4",
    "service_account_email": "workers@my-project.iam.gserviceaccount.com",
    "subnetwork": "regions/europe-west1/subnetworks/private",
    "use_public_ips": "false",
    "dataflow_kms_key": "projects/p/locations/l/keyRings/r/cryptoKeys/k",
    "experiments": "one,two",
}
SUBSCRIPTION = "projects/my-project/subscriptions/grantex-events"


def destinations(filed: str) -> dict[str, Destination]:
    """What the parameters ask for, made by hand."""
    rest, grpc = "https://rest.example.com", "https://grpc.example.com"
    role = "arn:aws:iam::123456789012:role/a,b=c"
    proxy, tags = "https://proxy.example.com", ("env:production", "team:identity")
    config: dict[str, str | Secret] = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": AwsSecret("k", "user"),
        "sasl.password": EnvSecret("KAFKA_PASSWORD"),
        "client.rack": 'a, b="c" ~ ^d',
    }
    policies = POLICIES
    made = [
        BigQuery(
            "my-project.grantex.events",
            "storage_write",
            "compatible",
            rest,
            grpc,
            way_out(filed),
            policies["bigquery"],
        ),
        S3(
            "my-archive",
            prefix=ODD,
            region="eu-central-1",
            endpoint="https://minio.example.com:9000",
            compression="zstd",
            layout="flat",
            role_arn=role,
            external_id="x,y=z",
            storage_class="GLACIER_IR",
            kms_key="alias/k",
            way_out=way_out(filed),
            policy=policies["s3"],
        ),
        GCS(
            "my-archive",
            ODD,
            "flat",
            "https://storage.example.com",
            "zstd",
            "NEARLINE",
            CLOUD_KEY,
            way_out(filed),
            policies["gcs"],
        ),
        Datadog(
            FileSecret(filed),
            endpoint=proxy,
            service=ODD,
            tags=tags,
            too_old="dead_letter",
            compression="none",
            way_out=way_out(filed),
            policy=policies["datadog"],
            source=ODD,
            host=ODD,
        ),
        Splunk(
            "https://splunk.example.com:8088",
            EnvSecret("SPLUNK_TOKEN"),
            index="main_2",
            index_by_type=("grant.*=identity", "sso.[a-l]*=x-1"),
            source=ODD,
            sourcetype="_json,x=y",
            host="a, b",
            acknowledge=True,
            compression="none",
            way_out=way_out(filed),
            policy=policies["splunk"],
        ),
        Kafka("a:9092,b:9092", "grantex.events_2", config, policy=policies["kafka"], way_out=way_out(filed)),
        PubSub(
            "projects/my-project/topics/again",
            "https://europe-west1-pubsub.googleapis.com",
            way_out(filed),
            policies["pubsub"],
        ),
    ]
    mine = {"audit": Audit("https://a/?x&y=z w", EnvSecret("AUDIT_TOKEN"))}
    mine["other"] = Audit("u,v", GoogleSecret("projects/p/secrets/s"))
    asked = Asked(("grant.*", "!*.[r-s]evoked"), ("data.principalId", "data.a.b"), EnvSecret("PSEUDONYM_KEY"))
    return {each.name: replace(each, asked=asked) for each in made} | mine  # type: ignore[type-var]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    place = tmp_path_factory.mktemp("dataflow")
    (place / "filed").write_text(FILED)
    pair = Authority(place).issue("client")
    (place / CERTIFICATE).write_bytes(pair.certificate.read_bytes())
    (place / KEY).write_bytes(pair.key.read_bytes())
    with gcs.running(place / "gcs.log") as storage, dataflow.running() as service:
        storage.create_bucket(BUCKET)
        yield Launcher(install(place), storage, service, place)


@dataclass(frozen=True)
class Launched:
    """A launch that went well: everything that left the machine, and the job in it."""

    said: subprocess.CompletedProcess[str]
    objects: Mapping[str, bytes]
    requests: list[dict[str, Any]]
    asked: list[str]
    elsewhere: str
    filed: str
    hidden: dict[str, str]

    @property
    def job(self) -> dict[str, Any]:
        """As it is written for Dataflow, or was sent to it, by the type of Dataflow's own library."""
        sent = json.dumps(self.requests[0]) if self.requests else self.objects[JOB_OBJECT].decode()
        job = Job.from_json(sent)  # refuses what it does not know
        found: dict[str, Any] = json.loads(Job.to_json(job, use_integers_for_enums=False))
        return found

    @property
    def pipeline(self) -> beam_runner_api_pb2.Pipeline:
        return pipeline_of(self.objects)

    @property
    def options(self) -> dict[str, Any]:
        """Beam's options as the workers get them."""
        found: dict[str, Any] = self.job["environment"]["sdkPipelineOptions"]["options"]
        return found


def launch(launcher: Launcher, parameters: Mapping[str, str], environment: Mapping[str, str]) -> Launched:
    before = set(launcher.storage.objects(BUCKET))
    requests, asked = len(launcher.dataflow.jobs), len(launcher.dataflow.asked)
    filed = str(launcher.place / "filed")
    place = str(launcher.place)
    given = {
        name: text.replace("{filed}", filed).replace("{place}", place) for name, text in parameters.items()
    }
    key = launcher.private_key()
    said = launcher.run(launcher_arguments(given, environment), **SECRETS)
    assert said.returncode == 0, said.stderr + said.stdout
    objects = launcher.storage.objects(BUCKET)
    return Launched(
        said,
        {name: content for name, content in objects.items() if name not in before or name == JOB_OBJECT},
        launcher.dataflow.jobs[requests:],
        launcher.dataflow.asked[asked:],
        launcher.asked_elsewhere(),
        filed,
        {**SECRETS, "the file": FILED, "the token": dataflow.TOKEN, "the key": key.splitlines()[1]},
    )


@pytest.fixture(scope="module")
def template(launcher: Launcher) -> Launched:
    """Every parameter of the feed's way in, from a form to the job that the service then starts."""
    return launch(launcher, PARAMETERS, ENVIRONMENT)


@pytest.fixture(scope="module")
def submitted(launcher: Launcher) -> Launched:
    """The direct path, from a subscription."""
    other = ("feed_", "sdk_container_image", "log_level")
    parameters = {name: text for name, text in PARAMETERS.items() if not name.startswith(other)}
    parameters["pubsub_subscription"] = SUBSCRIPTION
    parameters |= {"datadog_endpoint": "", "datadog_site": "datadoghq.eu"}
    direct = {"dataflow_endpoint": launcher.dataflow.endpoint, "template_location": ""}
    return launch(launcher, parameters, direct)


# The launcher's way


def test_every_parameter_of_the_form_is_rehearsed() -> None:
    form = json.loads((ROOT / "templates" / "metadata.json").read_text())
    names = {each["name"] for each in form["parameters"]}
    # Those of a file, the stages for receipts, which the golden labels are without, and what signs in at
    # Kafka in the place of the rehearsed settings.
    assert names == PARAMETERS.keys() | {"pubsub_subscription", "config", "receipts", "kafka_token"}


def test_the_template_is_a_job_that_nobody_has_asked_for_yet(template: Launched) -> None:
    assert template.requests == []
    assert template.asked == [], "nothing may be asked of a job that is not there"
    assert JOB_OBJECT in template.objects


def test_the_job_streams_with_what_the_launch_asked_for(template: Launched) -> None:
    job = template.job
    assert job["type"] == "JOB_TYPE_STREAMING"
    assert job["name"] == "grantex-1"
    environment = job["environment"]
    [pool] = environment["workerPools"]
    assert pool["numWorkers"] == 3
    assert pool["autoscalingSettings"] == {"algorithm": "AUTOSCALING_ALGORITHM_NONE", "maxNumWorkers": 3}
    assert pool["machineType"] == "n2-standard-4"
    assert pool["numThreadsPerWorker"] == 5
    assert pool["subnetwork"] == "regions/europe-west1/subnetworks/private"
    assert pool["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert environment["serviceAccountEmail"] == "workers@my-project.iam.gserviceaccount.com"
    assert environment["serviceKmsKeyName"] == "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    assert {"one", "two", "no_use_multiple_sdk_containers"} <= set(environment["experiments"])
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    assert not environment["serviceOptions"], "exactly-once mode is what there is without any"


def test_workers_run_the_image_and_find_beam_in_it(template: Launched, submitted: Launched) -> None:
    for launched, image in ((template, "example.com/derived:9"), (submitted, IMAGE)):
        [pool] = launched.job["environment"]["workerPools"]
        assert pool["workerHarnessContainerImage"] == image
        assert [each["containerImage"] for each in pool["sdkHarnessContainerImages"]] == [image]
        assert launched.options["sdk_location"] == "container"
        [environment] = launched.pipeline.components.environments.values()
        docker = beam_runner_api_pb2.DockerPayload.FromString(environment.payload)
        assert docker.container_image == image


def test_no_main_session_is_pickled_and_nothing_is_installed_on_workers(
    template: Launched, submitted: Launched
) -> None:
    for launched in (template, submitted):
        assert launched.options["save_main_session"] is False
        staged = {name.rpartition("/")[2] for name in launched.objects}
        assert staged <= {"pipeline.pb", "submission_environment_dependencies.txt", "job_object"}


def test_the_labels_are_the_golden_ones(template: Launched, submitted: Launched) -> None:
    golden = GOLDEN.read_text().splitlines()
    for launched, other in ((template, "ReadFromPubSub"), (submitted, "ReadFromGrantex")):
        found = {name for name in labels(launched.pipeline) if "Audit" not in name and "Other" not in name}
        assert sorted(found) == [line for line in golden if not line.startswith(other)]


def test_every_destination_reaches_its_do_fn_as_it_was_given(template: Launched) -> None:
    made = [each for each in parts(do_fns(template.pipeline)) if isinstance(each, Destination)]
    found = [each for each in made if each.name != "dead_letters"]
    expected = destinations(template.filed)
    assert {each.name for each in found} == expected.keys()
    for each in found:
        assert each == expected[each.name]
        assert type(each) is type(expected[each.name])


def test_everything_else_reaches_its_place_as_it_was_given(template: Launched) -> None:
    everything = list(parts(do_fns(template.pipeline)))
    assert FeedSettings(
        url="https://feed.example.com:8443/under/a/path",
        api_key=GoogleSecret("projects/my-project/secrets/grantex-api-key/versions/7"),
        types=("grant.created", "grant.revoked", "a=b"),
        way_out=way_out(template.filed),
    ) in [each for each in everything if isinstance(each, FeedSettings)]
    for value in (3, 1234.0, 4321, DrainTime(idle=33.5), PARAMETERS["dead_letters"]):
        assert any(type(each) is type(value) and each == value for each in everything), value
    windows = [each.window_fn for each in template.pipeline.components.windowing_strategies.values()]
    fixed = [each for each in windows if each.urn == "beam:window_fn:fixed_windows:v1"]
    assert fixed
    for each in fixed:
        size = standard_window_fns_pb2.FixedWindowsPayload.FromString(each.payload).size
        assert size.ToMilliseconds() == 77_500
    assert template.options["default_sdk_harness_log_level"] == "WARN"


# The direct way


def test_the_job_is_submitted_once_and_lives_by_itself(submitted: Launched) -> None:
    assert len(submitted.requests) == 1
    assert submitted.asked == ["POST /v1b3/projects/my-project/locations/europe-west1/jobs"]
    assert "gcloud dataflow jobs drain 2026-01-01_00_00_00-1234567890" in submitted.said.stderr
    assert submitted.job["type"] == "JOB_TYPE_STREAMING"


def test_workers_have_the_defaults_when_nobody_asks_for_others(submitted: Launched) -> None:
    [pool] = submitted.job["environment"]["workerPools"]
    assert pool["numWorkers"] == 2
    assert pool["autoscalingSettings"] == {"algorithm": "AUTOSCALING_ALGORITHM_NONE", "maxNumWorkers": 2}
    assert pool["machineType"] == "n2-standard-2"
    assert pool["numThreadsPerWorker"] == 5


def test_the_subscription_is_read_by_the_service_itself_and_repeats_are_told_by_the_event_s_id(
    submitted: Launched,
) -> None:
    transforms = submitted.pipeline.components.transforms.values()
    [reading] = [each for each in transforms if each.spec.urn == "beam:transform:pubsub_read:v1"]
    payload = beam_runner_api_pb2.PubSubReadPayload.FromString(reading.spec.payload)
    assert payload.subscription == SUBSCRIPTION
    assert payload.id_attribute == "event_id"


# What must not be there


def test_no_secret_is_in_anything_that_left_the_machine(template: Launched, submitted: Launched) -> None:
    for launched in (template, submitted):
        sent = [*launched.objects.values(), *(json.dumps(each).encode() for each in launched.requests)]
        packed = [each for content in sent for each in decoded(content)]
        text = b"\0".join(packed)
        assert len(packed) > len(sent) + 10, "nothing was unpacked"
        for reference in ("KAFKA_PASSWORD", "SPLUNK_TOKEN", "AUDIT_TOKEN", launched.filed):
            assert reference.encode() in text, "the search does not even find the references"
        for where, value in launched.hidden.items():
            assert value.encode() not in text, where
            assert value not in launched.said.stdout + launched.said.stderr, where
        # Beam's own lambdas carry the path of its package, which may be installed below ours.
        for package in ("pipelines", "transforms", "tests"):
            assert f"{ROOT}/{package}".encode() not in text, "the place of the source is nobody's business"


def test_none_of_our_parameters_is_among_beams_options(template: Launched) -> None:
    ours = PARAMETERS.keys() - {"number_of_worker_harness_threads", "sdk_container_image"}
    assert not ours & template.options.keys()


def test_nothing_else_is_asked_of_the_internet(template: Launched, submitted: Launched) -> None:
    """Google's library for credentials asks by itself in which regions the account may be used."""
    asked = {line.partition(" ")[2] for each in (template, submitted) for line in each.elsewhere.splitlines()}
    assert asked <= {"iamcredentials.googleapis.com"}


# What is wrong


def test_wrong_parameters_fail_in_the_launcher_one_line_each(launcher: Launcher) -> None:
    wrong = {
        "feed_api_key": SECRETS["AUDIT_TOKEN"],
        "dead_letters": "/var/lib/dead_letters",
        "splunk_index": "Main",
        "files_dir": "/var/lib/out",
        "window_size": "soon",
        "kafka_confg": "a=b",
        "kafka_bootstrap_servers": "k:9092",
    }
    done = launcher.run(launcher_arguments(wrong, {"max_num_workers": "9", "num_workers": "2"}))
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line.partition(":")[0].partition("=")[0] for line in lines] == [
        "--kafka_confg",
        "--splunk_index",
        "--window_size",
        "--files_dir",
        "--dead_letters",
        "--max_num_workers",
        "--feed_api_key",
    ], done.stderr
    assert SECRETS["AUDIT_TOKEN"] not in done.stderr
    assert "--kafka_confg: unknown flag; did you mean --kafka_config?" in lines
    assert any("a literal secret works on one machine only" in line for line in lines)
