"""What a release is made of and how it is made: the bill of materials, the licences, the workflow."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any

import jsonschema
import pytest
import yaml  # type: ignore[import-untyped]
from packaging.utils import canonicalize_name

from tests.servers.go_tools import actionlint
from tests.servers.process import cache_directory, pip_install
from tests.test_packaging import PYTHONS, ROOT, declared, pins

WORKFLOW = ROOT / ".github" / "workflows" / "release.yml"
# Where CycloneDX's schemas are, and nothing else of it is used.
SCHEMAS = """cyclonedx-python-lib==11.12.0 \\
    --hash=sha256:0e807521a921a5c3cb8ce1153f8a61d29eedfe76a46aac2796b7c6b573391a54
"""
LOCKS = ("requirements.txt", "requirements-machine.txt")
# Whose terms a company need not look at twice: notices, and at most files of their own that stay open.
HARMLESS = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0",
    "MIT-CMU", "MPL-2.0", "PSF-2.0", "ZPL-2.1", "Zlib",
}  # fmt: skip


def sbom(*arguments: str) -> str:
    command = [sys.executable, "templates/sbom.py", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def bill(lock: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sbom(lock))
    return found


@pytest.mark.slow
def test_the_list_of_licences_is_in_step_with_the_lock() -> None:
    committed = (ROOT / "docs" / "licenses.md").read_text()
    assert committed == sbom("--licenses"), "run `make sbom`"
    for python in PYTHONS:
        for name in pins("requirements.txt", python):
            assert re.search(rf"[ |]{re.escape(name)}[, ]", committed), f"{name} has no licence"


@pytest.mark.slow
@pytest.mark.parametrize("lock", LOCKS)
def test_a_bill_has_everything_that_its_lock_may_install(lock: str) -> None:
    components = bill(lock)["components"]
    listed = {(canonicalize_name(each["name"]), each["version"]) for each in components}
    for python in PYTHONS:
        assert {(name, str(version)) for name, version in pins(lock, python).items()} <= listed
    assert len(components) == len(re.findall(r"^\S+==", (ROOT / lock).read_text(), re.MULTILINE))
    assert sum(len(each["hashes"]) for each in components) == (ROOT / lock).read_text().count("--hash=")
    for each in components:
        [license] = each["licenses"]
        assert set(re.split(r" AND | OR |[()]", license["expression"])) - {""} <= HARMLESS, each["name"]


@pytest.mark.slow
def test_a_bill_is_the_same_twice() -> None:
    assert sbom("requirements-machine.txt") == sbom("requirements-machine.txt")


@pytest.mark.servers
def test_a_bill_is_what_cyclonedx_says_it_is() -> None:
    place = cache_directory("cyclonedx-python-lib-11.12.0")
    pip_install(place, SCHEMAS)
    schemas = place / "cyclonedx" / "schema" / "_res"
    schema = json.loads((schemas / "bom-1.6.SNAPSHOT.schema.json").read_text())
    others = {
        f"http://cyclonedx.org/schema/{name}": json.loads((schemas / name).read_text())
        for name in ("spdx.SNAPSHOT.schema.json", "jsf-0.82.SNAPSHOT.schema.json")
    }
    with pytest.warns(DeprecationWarning, match="RefResolver"):
        resolver = jsonschema.RefResolver(schema["$id"], schema, store=others)
    validator = jsonschema.Draft7Validator(schema, resolver=resolver)
    found = bill("requirements-machine.txt")
    for each in found["components"]:
        del each["hashes"][1:]  # hundreds of wheels of some, at a hundredth of a second each
    validator.validate(found)
    found["components"][0]["hashes"][0]["alg"] = "SHA-0"
    assert not validator.is_valid(found)


@pytest.mark.slow
def test_the_lock_of_one_machine_is_a_part_of_the_whole() -> None:
    """The package's own requirements stay what they are; this one leaves out what only clusters need."""
    for python in PYTHONS:
        whole, part = (pins(lock, python) for lock in LOCKS)
        assert part.items() <= whole.items()
        missing = {canonicalize_name(each.name) for each in declared("INSTALL_REQUIRES")} - part.keys()
        assert missing == set()
        assert "pyarrow" not in part
        assert len(part) < 0.6 * len(whole)


# The workflow


@pytest.mark.servers
@pytest.mark.timeout(1500)  # actionlint is built from source once
def test_the_workflow_is_one() -> None:
    done = subprocess.run([actionlint(), str(WORKFLOW)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_workflow_trusts_pinned_actions_and_one_job_with_rights() -> None:
    text = WORKFLOW.read_text()
    used = re.findall(r"uses: (\S+)", text)
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", each)] == []
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {}
    jobs = workflow["jobs"]
    for name, job in jobs.items():
        assert ("write" in job["permissions"].values()) == (name == "publish")
    assert set(jobs["publish"]["needs"]) == set(jobs) - {"publish"}
    assert set(re.findall(r"secrets\.(\w+)", text)) == {"GITHUB_TOKEN", "PYPI_TOKEN"}


def test_what_the_workflow_makes_exists() -> None:
    makefile, text = (ROOT / "Makefile").read_text(), WORKFLOW.read_text()
    for target in re.findall(r"run: make ([a-z ]+)$", text, re.MULTILINE)[0].split():
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for path in ("templates/helm", "templates/Dockerfile.machine", ".ci/run", ".ci/packages"):
        assert path in text
        assert (ROOT / path).exists()


@pytest.mark.slow
def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((ROOT / "templates" / "helm" / "Chart.yaml").read_text())
    version = bill("requirements-machine.txt")["metadata"]["component"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)
