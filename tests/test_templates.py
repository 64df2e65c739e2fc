"""Deployment files: accepted by the programs that read them, and in step with the job's own promises."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from pipelines import exit_codes
from pipelines.flags.settings import Settings, parse
from pipelines.local.display import REACHES_BACK
from pipelines.local.watchdog import EXTEND, TURN
from tests.servers.process import unavailable
from transforms.readers import byte_count

TEMPLATES = Path(__file__).parents[1] / "templates"
UNIT = TEMPLATES / "systemd" / "grantex-beam.service"
ENVIRONMENT = TEMPLATES / "systemd" / "grantex-beam.env"
ONE_OF_TWO = TEMPLATES / "systemd" / "grantex-beam@.service"
UNITS = [UNIT, ONE_OF_TWO]
MANIFEST = TEMPLATES / "kubernetes" / "statefulset.yaml"
PAIR = TEMPLATES / "kubernetes" / "pair.yaml"
MANIFESTS = [MANIFEST, PAIR]
COMMAND = "/opt/grantex-beam/bin/grantex-beam"
# Exposure in tenths, as `systemd-analyze security` counts it: from here on it says MEDIUM.
MOST_EXPOSED = 20
# What a provider still supports, and the newest that the validator knows.
KUBERNETES = ["1.30", kubernetes_validate.latest_version()]


# systemd


def unit(path: Path = UNIT) -> dict[str, list[str]]:
    """A unit's settings by name; a name may be given several times."""
    settings: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, _, value = line.partition("=")
            settings.setdefault(name, []).append(value)
    return settings


def systemd_analyze(
    tmp_path: Path, *arguments: str, replacing: Mapping[str, str], path: Path = UNIT
) -> tuple[int, str]:
    """Exit code and output of systemd-analyze on a copy of the unit."""
    if shutil.which("systemd-analyze") is None:
        unavailable("systemd-analyze is not installed (Debian: systemd)")
    text = path.read_text()
    for old, new in replacing.items():
        assert old in text
        text = text.replace(old, new)
    copy = tmp_path / path.name.replace("@", "@8787")
    copy.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", *arguments, str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_accepts_the_unit(tmp_path: Path, path: Path) -> None:
    # The command is not installed here; any that is will do.
    code, said = systemd_analyze(tmp_path, "verify", replacing={f"={COMMAND}": "=/bin/sh"}, path=path)
    assert (code, said) == (0, "")


def test_systemds_verdict_would_find_a_misspelt_setting(tmp_path: Path) -> None:
    replacing = {f"={COMMAND}": "=/bin/sh", "TimeoutStopSec": "TimeoutStopSecs"}
    code, said = systemd_analyze(tmp_path, "verify", replacing=replacing)
    assert "TimeoutStopSecs" in said, code


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_unit_is_hardened(tmp_path: Path, path: Path) -> None:
    arguments = ("security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager")
    code, said = systemd_analyze(tmp_path, *arguments, replacing={f"={COMMAND}": "=/bin/sh"}, path=path)
    assert code == 0, said


def test_one_of_two_is_the_same_unit_but_for_what_a_pair_needs() -> None:
    one, pair = unit(), unit(ONE_OF_TWO)
    (command,) = pair.pop("ExecStart")
    settings = parse([*command.replace("%i", "8789").split()[1:], "--demo=true"], {})
    assert one.pop("ExecStart") == [command.split()[0]]
    assert (settings.standby, settings.status_port) == (True, 8789)
    # Users made for a unit have its name; these two own one directory.
    assert pair.pop("User") == [unit()["StateDirectory"][0]]
    one.pop("Description")
    pair.pop("Description")
    assert pair == one


def test_systemd_hears_of_the_start_and_of_progress() -> None:
    settings = unit()
    assert settings["Type"] == ["notify"]
    assert float(settings["TimeoutStartSec"][0]) > EXTEND, "the first sign comes well before"
    assert float(settings["WatchdogSec"][0]) >= 10 * TURN
    # A hung process is waited for no longer, as its standby cannot go on before.
    assert float(settings["TimeoutAbortSec"][0]) <= 10


def test_the_unit_waits_for_a_drain_and_restarts_what_a_restart_can_help() -> None:
    settings = unit()
    assert float(settings["TimeoutStopSec"][0]) > Settings().drain_timeout + 10
    assert settings["KillSignal"] == ["SIGTERM"]
    assert settings["Restart"] == ["on-failure"]
    never = {str(exit_codes.BAD_PARAMETERS), str(exit_codes.PREFLIGHT_FAILED)}
    assert set(settings["RestartPreventExitStatus"][0].split()) == never


def test_the_job_understands_the_units_environment(tmp_path: Path) -> None:
    lines = ENVIRONMENT.read_text().splitlines()
    given = [line for line in lines if line and not line.startswith("#")]
    suggested = [line[1:] for line in lines if line.startswith("#GRANTEX_")]
    assert suggested
    # Both as systemd and the state directory of the unit put them together.
    here = str(tmp_path)
    texts = [each.replace("%S", here) for each in unit()["Environment"]]
    texts += [each.replace("/var/lib", here) for each in given + suggested]
    settings = parse([], dict(each.split("=", 1) for each in texts))
    writable = tmp_path / unit()["StateDirectory"][0]
    assert settings.state_dir.is_relative_to(writable)
    assert Path(settings["files_dir"]).is_relative_to(writable)
    assert settings.warnings == ()


# Kubernetes


def documents(path: Path = MANIFEST) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def of_kind(kind: str, path: Path = MANIFEST) -> dict[str, Any]:
    (found,) = [each for each in documents(path) if each["kind"] == kind]
    return found


def pod(path: Path = MANIFEST) -> dict[str, Any]:
    spec: dict[str, Any] = of_kind("StatefulSet", path)["spec"]["template"]["spec"]
    return spec


def container(path: Path = MANIFEST) -> dict[str, Any]:
    (found,) = pod(path)["containers"]
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_schema_accepts_the_manifest(version: str) -> None:
    assert [each["kind"] for each in documents()] == ["Service", "StatefulSet"]
    kinds = [each["kind"] for each in documents(PAIR)]
    assert kinds == ["Service", "PersistentVolumeClaim", "StatefulSet"]
    for document in (each for path in MANIFESTS for each in documents(path)):
        kubernetes_validate.validate(document, version, strict=True)


def test_kubernetes_schema_would_find_a_misspelt_field() -> None:
    document = documents()[1]
    document["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(document, KUBERNETES[-1], strict=True)


def test_there_is_one_pod_and_it_is_given_the_time_to_drain() -> None:
    assert of_kind("StatefulSet")["spec"]["replicas"] == 1
    assert pod()["terminationGracePeriodSeconds"] > Settings().drain_timeout + 10


def test_a_pair_is_the_same_pod_twice_on_one_node_and_one_volume() -> None:
    spec = of_kind("StatefulSet", PAIR)["spec"]
    assert spec["minReadySeconds"] >= REACHES_BACK
    assert spec["replicas"] == 2, (
        "the streams of one that delivers and one that stands by fit the service's five"
    )
    (term,) = pod(PAIR)["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    assert term["labelSelector"]["matchLabels"] == spec["template"]["metadata"]["labels"]
    claim = of_kind("PersistentVolumeClaim", PAIR)
    (state,) = [each for each in pod(PAIR)["volumes"] if each["name"] == "state"]
    assert state["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    assert claim["spec"] == of_kind("StatefulSet")["spec"]["volumeClaimTemplates"][0]["spec"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOnce"]
    one, other = container(), container(PAIR)
    assert [each for each in other["env"] if each not in one["env"]] == [
        {"name": "GRANTEX_STANDBY", "value": "true"}
    ]
    assert {**other, "env": []} == {**one, "env": []}
    rest = pod(PAIR)
    rest.pop("affinity")
    assert {**rest, "containers": [], "volumes": []} == {**pod(), "containers": [], "volumes": []}


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_job_understands_the_pods_environment(tmp_path: Path, path: Path) -> None:
    environment = {each["name"]: each["value"] for each in container(path)["env"]}
    mount = next(each for each in container()["volumeMounts"] if each["name"] == "state")
    assert environment["GRANTEX_STATE_DIR"].startswith(f"{mount['mountPath']}/")
    secrets = {"FEED_KEY": "from-the-secret", "SPLUNK_TOKEN": "from-the-secret"}
    settings = parse([], {**environment, **secrets, "GRANTEX_STATE_DIR": str(tmp_path)})
    assert settings.warnings == ()
    assert settings.status_host == "0.0.0.0"
    assert settings.standby == (path == PAIR)
    (port,) = container()["ports"]
    assert port["containerPort"] == settings.status_port
    assert not [name for name in environment if name in secrets], "secrets come from the Secret only"


def test_the_journal_fits_on_its_volume() -> None:
    (claim,) = of_kind("StatefulSet")["spec"]["volumeClaimTemplates"]
    volume = byte_count(claim["spec"]["resources"]["requests"]["storage"].replace("Gi", "GiB"))
    environment = {each["name"]: each["value"] for each in container()["env"]}
    assert byte_count(environment["GRANTEX_JOURNAL_MAX_BYTES"]) <= volume - 2 * 1024**3


@pytest.mark.parametrize(
    ("probe", "path"),
    [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")],
)
def test_probes_ask_the_pages_that_the_job_serves(probe: str, path: str) -> None:
    assert container()[probe]["httpGet"] == {"path": path, "port": "status"}
    assert container()["ports"][0]["name"] == "status"


def test_the_pod_is_locked_down() -> None:
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["automountServiceAccountToken"] is False
    assert pod()["enableServiceLinks"] is False
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
