"""The Helm chart: Helm and Kubernetes accept it, the job understands its settings, it is the pods of
templates/kubernetes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from pipelines.flags.destinations import destinations
from pipelines.flags.settings import Settings, parse
from tests.servers.go_tools import helm
from tests.test_templates import KUBERNETES, PAIR, container, pod
from tests.test_templates import documents as manifests

# Helm is built from source once, which may take minutes.
pytestmark = [pytest.mark.servers, pytest.mark.timeout(1500)]

CHART = Path(__file__).parents[1] / "templates" / "helm"
NAME = "grantex-beam"
DESTINATIONS = {
    "splunk": {
        "kind": "splunk",
        "hec_url": "https://splunk.example.com:8088",
        "hec_token": "file:/secrets/SPLUNK_TOKEN",
        "max_events": 1_000_000,
        "max_age": 0.5,
    },
    "archive": {"kind": "s3", "bucket": "audit", "region": "eu-west-1", "max_bytes": 123_456_789},
}
# Everything that is off by default, and each list with something in it.
ALL: Mapping[str, Any] = {
    "image": {"repository": "registry.example.com/grantex-beam", "digest": "sha256:" + "a" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "config": {"destinations": DESTINATIONS, "drain_timeout": 60, "journal_max_bytes": 7_000_000_000},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/grantex-beam"}},
    "persistence": {"storageClass": "fast"},
    "webhook": {"enabled": True},
    "networkPolicy": {
        "statusFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
        "extraEgress": [{"ports": [{"port": 3128}]}],
    },
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.com:3128"}],
    "podAnnotations": {"example.com/owner": "audit"},
    "podLabels": {"team": "audit"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "audit", "operator": "Exists"}],
    "priorityClassName": "high",
}
ONE: Mapping[str, Any] = {
    "standby": False,
    "secretName": "",
    "serviceAccount": {"create": False},
    "persistence": {"existingClaim": "mine"},
    "networkPolicy": {"enabled": False},
}
VALUES = {"default": {}, "all": ALL, "one": ONE}


def run(values: Mapping[str, Any], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Built from source it knows no version of Kubernetes by itself."""
    command = [str(helm()), *arguments, str(CHART), "--values", "-", f"--kube-version={KUBERNETES[0]}"]
    given = yaml.safe_dump(dict(values))
    return subprocess.run(command, input=given, capture_output=True, text=True, check=False)


def rendered(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    done = run(values, "template", "--namespace=audit", NAME)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def of_kind(kind: str, values: Mapping[str, Any], name: str = NAME) -> dict[str, Any]:
    [found] = [e for e in rendered(values) if (e["kind"], e["metadata"]["name"]) == (kind, name)]
    return found


def settings(tmp_path: Path, values: Mapping[str, Any]) -> Settings:
    """As the job in the pod reads them, its secrets and its volume being elsewhere."""
    for name in ("FEED_KEY", "SPLUNK_TOKEN", "WEBHOOK_SECRET"):
        (tmp_path / name).write_text(f"whsec_{name}")
    text = of_kind("ConfigMap", values)["data"]["grantex.yaml"]
    file = tmp_path / "grantex.yaml"
    file.write_text(text.replace("file:/secrets", f"file:{tmp_path}").replace("/state/", f"{tmp_path}/"))
    return parse([f"--config={file}"], {})


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_helm_and_kubernetes_accept_it(values: Mapping[str, Any]) -> None:
    done = run(values, "lint", "--strict")
    assert done.returncode == 0, done.stdout
    for document in rendered(values):
        if document["kind"] != "ServiceMonitor":  # the operator's own
            for version in KUBERNETES:
                kubernetes_validate.validate(document, version, strict=True)


def test_what_is_rendered() -> None:
    kinds = ["NetworkPolicy", "PodDisruptionBudget", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"]
    assert [each["kind"] for each in rendered({})] == [*kinds, "Service", "StatefulSet"]
    kinds += ["Service", "Service", "StatefulSet", "ServiceMonitor"]
    assert [each["kind"] for each in rendered(ALL)] == kinds
    assert [each["kind"] for each in rendered(ONE)] == ["ConfigMap", "Service", "StatefulSet"]


def test_its_pods_are_those_of_the_plain_manifest() -> None:
    """But for how settings and secrets come in."""
    made, [plain] = of_kind("StatefulSet", {}), [e for e in manifests(PAIR) if e["kind"] == "StatefulSet"]
    for name in ("replicas", "podManagementPolicy", "minReadySeconds", "serviceName"):
        assert made["spec"][name] == plain["spec"][name]
    inside = made["spec"]["template"]["spec"]
    [own], other = inside.pop("containers"), container(PAIR)
    for name in ("startupProbe", "livenessProbe", "readinessProbe", "resources", "securityContext", "ports"):
        assert own[name] == other[name]
    assert own["image"] == other["image"]
    assert inside.pop("serviceAccountName") == NAME
    expected = {name: value for name, value in pod(PAIR).items() if name != "containers"}
    [term] = inside["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert (
        term["labelSelector"]["matchLabels"].items() <= made["spec"]["template"]["metadata"]["labels"].items()
    )
    for each in (inside, expected):
        each.pop("affinity")
        each["volumes"] = [one for one in each["volumes"] if one["name"] in ("tmp", "state")]
    assert inside == expected


def test_the_job_understands_its_settings(tmp_path: Path) -> None:
    found = settings(tmp_path, ALL)
    assert found.warnings == ()
    assert (found.status_host, found.status_port, found.standby) == ("0.0.0.0", 8787, True)
    assert (found.webhook_host, found.webhook_port, found.webhook_path) == ("0.0.0.0", 8788, "/grantex")
    assert found.journal_max_bytes == 7_000_000_000, "Helm has turned it into another number"
    by_name = {each.name: each for each in destinations(found)}
    assert by_name["splunk"].policy.max_events == 1_000_000
    assert by_name["archive"].policy.max_bytes == 123_456_789
    spec = of_kind("StatefulSet", ALL)["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] > found.drain_timeout + 10
    assert settings(tmp_path, {**ONE, "config": ALL["config"]}).standby is False


def test_everything_finds_its_pods_and_ports() -> None:
    spec = of_kind("StatefulSet", ALL)["spec"]["template"]
    labels = spec["metadata"]["labels"]
    [own] = spec["spec"]["containers"]
    ports = {each["name"] for each in own["ports"]}
    assert ports == {"status", "webhook"}
    for document in rendered(ALL):
        if document["kind"] == "Service":
            assert document["spec"]["selector"].items() <= labels.items()
            assert {each["targetPort"] for each in document["spec"]["ports"]} <= ports
    policy = of_kind("NetworkPolicy", ALL)["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    assert of_kind("PodDisruptionBudget", ALL)["spec"]["selector"]["matchLabels"].items() <= labels.items()
    monitor, service = of_kind("ServiceMonitor", ALL), of_kind("Service", ALL)
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [each["port"] for each in monitor["spec"]["endpoints"]] == [service["spec"]["ports"][0]["name"]]
    mounts = {each["name"] for each in own["volumeMounts"]}
    assert mounts == {each["name"] for each in spec["spec"]["volumes"]}
    account = of_kind("ServiceAccount", ALL)
    assert account["metadata"]["annotations"] == ALL["serviceAccount"]["annotations"]
    assert spec["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_another_setting_is_another_pod() -> None:
    def checksum(values: Mapping[str, Any]) -> str:
        annotations = of_kind("StatefulSet", values)["spec"]["template"]["metadata"]["annotations"]
        return str(annotations["checksum/config"])

    assert checksum({}) == checksum({"podLabels": {"team": "audit"}})
    assert checksum({}) != checksum({"config": {"window_size": 60}})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"standbye": True}, "standbye"),
        ({"config": {"standby": True}}, "standby"),
        ({"config": {"state_dir": "/tmp"}}, "state_dir"),
        ({"webhook": {"secret": "whsec_in_the_open"}}, "secret"),
        ({"image": {"digest": "latest"}}, "digest"),
        ({"persistence": {"size": "10"}}, "size"),
        ({"networkPolicy": {"egressPorts": []}}, "egressPorts"),
    ],
    ids=str,
)
def test_a_mistake_in_the_values_is_refused(values: Mapping[str, Any], said: str) -> None:
    done = run(values, "template", NAME)
    assert done.returncode == 1
    assert said in done.stderr
