"""The Dataflow template's files: generated ones are up to date, and what they say is what the job does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml  # type: ignore[import-untyped]
from google.cloud.dataflow_v1beta3.types import ParameterType, TemplateMetadata

from pipelines.cluster import dataflow
from pipelines.flags.command_line import beam_flags
from pipelines.flags.settings import PARAMETERS, Settings, parse
from pipelines.flags.template import as_text
from tests.test_packaging import pins

ROOT = Path(__file__).parents[1]
TEMPLATES = ROOT / "templates"
METADATA = TEMPLATES / "metadata.json"
LAUNCH = ["--project=my-project", "--region=r", "--temp_location=gs://b/t", "--sdk_container_image=i"]


def form() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(METADATA.read_text())["parameters"]
    return found


def accepted(parameters: dict[str, str]) -> Settings:
    """The settings that a launch with these parameters has; there must be no warnings either."""
    argv = ["--runner=DataflowRunner", *LAUNCH, *(f"--{name}={text}" for name, text in parameters.items())]
    settings = parse(argv, {})
    assert settings.warnings == ()
    return settings


# metadata.json


def test_the_metadata_is_what_the_parameters_make_it() -> None:
    assert METADATA.read_text() == as_text(), (
        "run `python -m pipelines.flags.template > templates/metadata.json`"
    )


def test_dataflows_own_type_takes_the_metadata() -> None:
    """It refuses fields and kinds of input that it does not know."""
    made = TemplateMetadata.from_json(METADATA.read_text())
    assert made.streaming
    assert made.supports_exactly_once
    assert not made.supports_at_least_once
    # Its definition: only for a template that supports both.
    assert "defaultStreamingMode" not in json.loads(METADATA.read_text())
    assert [each.name for each in made.parameters] == [each["name"] for each in form()]
    kinds = {each.name: each.param_type for each in made.parameters}
    assert kinds["bigquery_method"] == ParameterType.ENUM
    assert kinds["pubsub_subscription"] == ParameterType.PUBSUB_SUBSCRIPTION
    wrong = METADATA.read_text().replace('"PUBSUB_TOPIC"', '"PUBSUB_TOPICS"')
    with pytest.raises(Exception, match="PUBSUB_TOPICS"):
        TemplateMetadata.from_json(wrong)


def test_every_parameter_of_the_form_is_one_of_ours_or_beams() -> None:
    for each in form():
        assert each["name"] in PARAMETERS or each["name"] in beam_flags()


def test_what_is_for_one_machine_is_not_in_the_form() -> None:
    names = {each["name"] for each in form()}
    assert not names & {"state_dir", "status_port", "files_dir", "files_max_age", "demo", "runner"}
    assert {"feed_url", "dead_letters", "s3_bucket", "custom_destination"} <= names


@pytest.mark.parametrize("each", form(), ids=lambda each: str(each["name"]))
def test_the_form_accepts_examples_and_defaults(each: dict[str, Any]) -> None:
    parameter = PARAMETERS.get(each["name"])
    texts = [each["defaultValue"]] if "defaultValue" in each else []
    if parameter is not None and parameter.example:
        # On a form a secret comes from a manager, and a directory from a bucket.
        texts += [parameter.example]
    for text in texts:
        for pattern in each.get("regexes", ()):
            assert re.fullmatch(pattern, text), (pattern, text)
        if parameter is not None and parameter.name != "custom_destination":  # its module is nowhere
            parameter.value(text)
    options = [option["value"] for option in each.get("enumOptions", ())]
    assert bool(options) == (each["paramType"] == "ENUM")
    assert not options or each["defaultValue"] in options


def patterns() -> list[tuple[str, str]]:
    """Every pattern of the form, and the parameter that has it."""
    return [(each["name"], pattern) for each in form() for pattern in each.get("regexes", ())]


@pytest.mark.parametrize(("name", "pattern"), patterns())
def test_patterns_are_in_a_dialect_that_re2_and_posix_share(name: str, pattern: str) -> None:
    """The console, gcloud and the service each have a reader of their own."""
    inside = re.findall(r"\[\^?\]?[^\]]*\]", pattern)
    assert not any("\\" in each for each in inside), "a backslash in brackets is itself in POSIX"
    assert not re.search(r"\\[A-Za-z0-9]", pattern), "no \\s, \\w, \\d and the like"
    assert not re.search(r"\(\?|[*+?}][?+]", pattern), "no groups of another kind, nothing lazy"
    assert all(int(most) <= 1000 for most in re.findall(r"(\d+)\}", pattern)), (
        "RE2 repeats 1000 times at most"
    )
    assert pattern.isascii()
    assert subprocess.run(["grep", "-E", pattern], input="", text=True).returncode == 1, "POSIX takes it"


# What the job takes and refuses, and so must the form.
FITS = {
    "bigquery_table": (
        ["example.com:my-project.grantex.events", "my-project:d.t", "my-project.d_1.t-2"],
        ["my-project.d", "d.t", "my project.d.t", "my-project.d.t.u.v", "My.d.t", "p.d-1.t", "p.d.a/b"],
    ),
    "s3_bucket": (
        ["a.b-c", "Old_Bucket", "arn:aws:s3:eu-west-1:1:accesspoint/x"],
        ["a", "a/b", "a b", "-ab"],
    ),
    "s3_region": (["eu-central-1"], ["Frankfurt", "eu west"]),
    "s3_role_arn": (
        ["arn:aws:iam::123456789012:role/a+b", "arn:aws-us-gov:iam::1:role/x"],
        ["role", "arn:x y"],
    ),
    "s3_external_id": (["x-42", "a/b:c"], ["a b"]),
    "s3_storage_class": (["GLACIER_IR"], ["cold"]),
    "s3_kms_key": (["alias/k", "arn:aws:kms:eu-west-1:1:key/a-b"], ["a b"]),
    "gcs_bucket": (["a.b-c", "my_archive"], ["a", "a/b", "Archive", "gs://archive", "-ab"]),
    "gcs_storage_class": (["NEARLINE"], ["cold"]),
    "gcs_kms_key": (["projects/p/locations/eu/keyRings/r/cryptoKeys/k"], ["k", "projects/p/keyRings/r"]),
    "splunk_index": (["main", "_x-1"], ["Main", "-x", "a b"]),
    "kafka_bootstrap_servers": (
        ["a:1", "a:1,b:2", "a:1, b:2", "[::1]:9092"],
        ["a", "a:1,", "kafka://a:1", "u@a:1"],
    ),
    "pubsub_topic": (
        ["projects/my-project/topics/t-1", "projects/example.com:my-project/topics/t.1"],
        [
            "topics/t",
            "projects/p/topics/t-1",
            "projects/my-project/topics/1t",
            "projects/my-project/topics/t x",
        ],
    ),
    "pubsub_subscription": (
        ["projects/example.com:my-project/subscriptions/s-1"],
        ["projects/my-project/topics/t-1", "projects/my-project/subscriptions/s"],
    ),
    "splunk_hec_url": (
        ["https://s.test:8088", "http://[::1]:8088/x"],
        ["s.test", "https://u@s.test", "https://a b"],
    ),
    "dead_letters": (["gs://b", "s3://b/", "gs://b/c/d"], ["gs://", "gs:///c", "s3://a b", "s3://"]),
    "feed_url": (
        ["HTTPS://grantex.test", "http://127.0.0.1:1/x@y"],
        ["ftp://a", "https://", "https://a?b", "https://a/#b"],
    ),
    "feed_api_key": (
        [
            "env:KEY_1",
            "file:/run/a b",
            "secret:projects/x.y:z/secrets/s-1/versions/3",
            "aws-secret:arn:aws:x/y#k z",
        ],
        [
            "env:1KEY",
            "env:",
            "file:",
            "secret:projects/p/secrets/s/t",
            "secret:p",
            "aws-secret:",
            "aws-secret:a b",
        ],
    ),
    "s3_max_bytes": (["16MiB", "1 GB", "5000"], ["16mb", "1.5GB", "1TB", "many"]),
    "splunk_max_age": (["0.5", ".5", "5.", "1e-3"], ["5s", "1e", "."]),
    "feed_connections": (["5"], ["many"]),
    "kafka_token": (["msk-iam", "google"], ["aws", "msk-iamx"]),
    "http_proxy": (["proxy.test:3128", "http://proxy.test:3128/"], ["http://a b:1"]),
}


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        (name, text, right)
        for name, both in FITS.items()
        for right, some in zip((True, False), both, strict=True)
        for text in some
    ],
)
def test_what_fits_into_the_form_is_what_the_job_takes(name: str, text: str, right: bool) -> None:
    [pattern] = [found for owner, found in patterns() if owner == name]
    value, fault = PARAMETERS[name].attempt("--x", text)
    assert (not fault) == right, (value, fault)
    assert bool(re.fullmatch(pattern, text)) == right
    in_posix = subprocess.run(["grep", "-qE", pattern], input=text, text=True, env={"LC_ALL": "C"})
    assert (in_posix.returncode == 0) == right


def test_every_pattern_has_been_tried_or_is_one_of_a_kind() -> None:
    kinds = {PARAMETERS[name].placeholder for name in FITS} - {"TEXT"}
    ours = {name for name, _ in patterns() if name in PARAMETERS}
    assert {name for name in ours if PARAMETERS[name].placeholder not in kinds} <= FITS.keys()


def test_only_references_to_secrets_fit_into_the_form() -> None:
    secrets = [
        each for each in form() if PARAMETERS.get(each["name"], PARAMETERS["demo"]).placeholder == "SECRET"
    ]
    assert {"feed_api_key", "splunk_hec_token", "datadog_api_key"} <= {each["name"] for each in secrets}
    for each in secrets:
        [pattern] = each["regexes"]
        for right in (
            "secret:projects/p/secrets/s",
            "secret:projects/p/secrets/s/versions/3",
            "aws-secret:a/b#k",
        ):
            assert re.fullmatch(pattern, right)
        for wrong in ("b5a79aad-d822-46cc-80d1-819f80d7bfb0", "gx_live_1", "secret:p", "env:", ""):
            assert not re.fullmatch(pattern, wrong)


def test_a_destination_shows_its_parameters_once_it_is_on() -> None:
    by_name = {each["name"]: each for each in form()}
    for name, each in by_name.items():
        first = PARAMETERS[name].group.first if name in PARAMETERS else ""
        if not first or first == name:
            assert each["groupName"]
            assert "parentName" not in each
        else:
            assert each["parentName"] in by_name
            assert "groupName" not in each
    assert by_name["splunk_index"]["parentName"] == "splunk_hec_url"
    assert by_name["splunk_index"]["parentTriggerValues"] == []
    assert by_name["bigquery_storage_endpoint"]["parentName"] == "bigquery_method"
    assert by_name["bigquery_storage_endpoint"]["parentTriggerValues"] == ["storage_write"]
    assert by_name["s3_external_id"]["parentName"] == "s3_role_arn"
    assert [name for name, each in by_name.items() if not each["isOptional"]] == ["dead_letters"]


def test_a_form_that_hands_over_every_default_starts_the_job() -> None:
    prefilled = {each["name"]: each["defaultValue"] for each in form() if "defaultValue" in each}
    subscription = "projects/my-project/subscriptions/s-u-b"
    more = {
        "dead_letters": "gs://b/d",
        "bigquery_table": "my-project.d.t",
        "pubsub_subscription": subscription,
    }
    assert accepted(prefilled | more).given == more.keys() | {"runner"}


# The image and the scripts


def dockerfile() -> str:
    return (TEMPLATES / "Dockerfile").read_text()


def test_the_image_has_the_versions_that_are_pinned() -> None:
    beam = re.search(r"^ARG BEAM=(\S+)$", dockerfile(), re.MULTILINE)
    python = re.search(r"^ARG PYTHON=(\S+)$", dockerfile(), re.MULTILINE)
    assert beam is not None
    assert python is not None
    assert beam[1] == str(pins("requirements.txt", python[1])["apache-beam"])
    for line in re.findall(r"^FROM (.*)$", dockerfile(), re.MULTILINE):
        assert ":" in line
        assert "latest" not in line


def test_the_image_takes_what_is_there_and_nothing_else_reaches_it() -> None:
    copied = [line.split()[1:-1] for line in dockerfile().splitlines() if re.match(r"COPY (?!--from)", line)]
    sources = {source for line in copied for source in line}
    for source in sources:
        assert (ROOT / source).exists()
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed - {"requirements-machine.txt"} == sources, "beside what the image of one machine takes"


def test_the_image_starts_as_launcher_and_as_worker() -> None:
    text = dockerfile()
    assert "FLEX_TEMPLATE_PYTHON_PY_FILE=/template/main.py" in text
    assert 'ENTRYPOINT ["/opt/apache/beam/boot"]' in text
    assert f"ENV {dataflow.IMAGE_VARIABLE}=$IMAGE" in text
    assert "GRANTEX_RUNNER=DataflowRunner" in text
    assert "FLEX_TEMPLATE_PYTHON_SETUP_FILE" not in text, "the package is installed"


def run_script(name: str, *arguments: str, path: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(TEMPLATES / name), *arguments],
        env={"PATH": f"{path}:{os.environ['PATH']}", **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """gcloud and docker that say what they were asked for."""
    for name in ("gcloud", "docker"):
        program = tmp_path / name
        asked = f'printf "%s" {name} >&2; for a; do printf " [%s]" "$a" >&2; done; echo >&2'
        metadata = f"case $* in *flags.template) cat {METADATA} ;; esac" if name == "docker" else ":"
        program.write_text(f"#!/bin/sh\n{asked}\n{metadata}\n")
        program.chmod(0o755)
    return tmp_path


def test_one_script_builds(tools: Path) -> None:
    image = "r-docker.pkg.dev/p/grantex/grantex-beam:1.2.3"
    done = run_script("build.sh", image, "gs://b/grantex.json", path=tools)
    assert done.returncode == 0, done.stderr
    build, check, push, template = done.stderr.splitlines()
    assert f"[--build-arg] [IMAGE={image}]" in build
    assert "[-m] [pipelines.flags.template]" in check
    assert push == f"docker [push] [{image}]"
    assert template.startswith("gcloud [dataflow] [flex-template] [build] [gs://b/grantex.json] [--image]")
    assert "[--metadata-file] [templates/metadata.json]" in template


@pytest.mark.parametrize(
    "arguments",
    [[], ["image:1"], ["image", "gs://b/x.json"], ["i:latest", "gs://b/x.json"], ["image:1", "/x.json"]],
)
def test_a_build_that_cannot_be_is_refused(arguments: list[str], tools: Path) -> None:
    done = run_script("build.sh", *arguments, path=tools)
    assert done.returncode == 2
    assert "docker" not in done.stderr.split()


def test_one_script_launches_with_the_defaults_of_the_job(tools: Path) -> None:
    environ = {"REGION": "r", "SERVICE_ACCOUNT": "a@p.iam.gserviceaccount.com"}
    given = ("grantex-1", "gs://b/x.json", str(TEMPLATES / "parameters.yaml"))
    done = run_script("launch.sh", *given, "--quiet", path=tools, **environ)
    assert done.returncode == 0, done.stderr
    assert f"[--num-workers] [{dataflow.WORKERS}] [--max-workers] [{dataflow.WORKERS}]" in done.stderr
    assert f"[--worker-machine-type] [{dataflow.MACHINE_TYPE}]" in done.stderr
    assert f"[--flags-file] [{TEMPLATES / 'parameters.yaml'}]" in done.stderr
    assert done.stderr.strip().endswith("[--quiet]")
    more = {"WORKERS": "3", "SUBNETWORK": "regions/r/subnetworks/s", "PRIVATE_IPS": "true", "KMS_KEY": "k"}
    done = run_script("launch.sh", *given, path=tools, **environ, **more, STAGING="gs://b")
    for part in ("[--max-workers] [3]", "[--subnetwork] [regions/r/subnetworks/s]", "[--disable-public-ips]"):
        assert part in done.stderr
    assert "[--dataflow-kms-key] [k]" in done.stderr
    assert "[--staging-location] [gs://b/staging] [--temp-location] [gs://b/temp]" in done.stderr
    assert run_script("launch.sh", *given, path=tools, REGION="r").returncode != 0


def test_the_job_understands_the_example_of_parameters() -> None:
    text = (TEMPLATES / "parameters.yaml").read_text()
    [(flag, parameters)] = yaml.safe_load(text).items()
    assert flag == "--parameters"
    assert accepted(parameters)["bigquery_table"] == "my-project.grantex.events"
    # The other way in, as its comment has it.
    commented = yaml.safe_load(re.sub(r"^  # (?=feed_)", "  ", text, flags=re.MULTILINE))["--parameters"]
    del commented["pubsub_subscription"]
    assert accepted(commented).feed_connections == 2


# Terraform


def terraform(name: str) -> dict[str, Any]:
    """A file as HCL's grammar reads it, texts without their quotes."""
    found: dict[str, Any] = hcl2.loads((TEMPLATES / "terraform" / name).read_text())
    return json.loads(re.sub(r'\\"', "", json.dumps(found)))  # type: ignore[no-any-return]


def resources(kind: str) -> list[dict[str, Any]]:
    blocks = [each[kind] for each in terraform("main.tf")["resource"] if kind in each]
    return [each for block in blocks for each in block.values()]


@pytest.mark.parametrize("path", sorted((TEMPLATES / "terraform").glob("*.tf")), ids=lambda path: path.name)
def test_terraform_is_well_formed(path: Path) -> None:
    assert hcl2.loads(path.read_text())
    with pytest.raises(Exception, match=r".+"):
        hcl2.loads(path.read_text().replace("}", "", 1))


def test_terraform_starts_the_job_with_parameters_that_it_understands() -> None:
    [job] = resources("google_dataflow_flex_template_job")
    assert job["on_delete"] == "drain"
    assert job["num_workers"] == job["max_workers"] == "${var.workers}"
    given = re.findall(r"(\w+) = ", job["parameters"])
    assert given == ["pubsub_subscription", "dead_letters", "bigquery_table"]
    assert set(given) <= PARAMETERS.keys()
    variables = {
        name: each for block in terraform("variables.tf")["variable"] for name, each in block.items()
    }
    assert variables["workers"]["default"] == dataflow.WORKERS
    assert variables["machine_type"]["default"] == dataflow.MACHINE_TYPE


def test_terraform_grants_what_is_needed_where_it_is_needed() -> None:
    """On the project only what has no smaller place, and nobody owns, edits or administers it."""
    assert [each["role"] for each in resources("google_project_iam_member")] == ["roles/dataflow.worker"]
    text = (TEMPLATES / "terraform" / "main.tf").read_text()
    roles = set(re.findall(r"roles/[\w.]+", text))
    assert roles == {
        "roles/artifactregistry.reader",
        "roles/bigquery.dataEditor",
        "roles/cloudkms.cryptoKeyEncrypterDecrypter",
        "roles/dataflow.worker",
        "roles/pubsub.publisher",
        "roles/pubsub.subscriber",
        "roles/pubsub.viewer",
        "roles/secretmanager.secretAccessor",
        "roles/storage.objectAdmin",
    }
    assert "secret_data" not in text, "a value would be in the state file"
    [agents] = resources("google_kms_crypto_key_iam_member")
    assert "var.kms_key" in agents["crypto_key_id"]
    for agent in ("dataflow-service-producer-prod", "compute-system"):
        assert agent in agents["for_each"]


def test_what_a_cancelled_job_loses_can_be_had_again() -> None:
    """Its messages were acknowledged long before they were delivered."""
    [subscription] = resources("google_pubsub_subscription")
    assert subscription["retain_acked_messages"] is True
    assert subscription["message_retention_duration"] == "604800s"
