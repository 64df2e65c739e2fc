"""What is imported is declared, what is declared is pinned with hashes, and only what runs is packed."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.txt", "requirements-machine.txt", "requirements-dev.txt", "requirements-build.txt")
PACKAGES = ("pipelines", "transforms")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
PIN = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^ ;\\]+)(?: ; (?P<marker>[^\\]+?))? \\$", re.MULTILINE
)
# Distributions whose import name is another one.
DISTRIBUTIONS = {
    "google": "google-cloud-secret-manager",
    "botocore": "boto3",
    "httpcore": "httpx",
    "grpc": "grpcio",
    "google_crc32c": "google-cloud-storage",
    "splunklib": "splunk-sdk",
    "urllib3": "datadog-api-client",  # whose errors of the way there are its
    "yaml": "pyyaml",
}


# What renders templates/packs is run by a developer, and its result is committed.
OF_DEVELOPERS = {"grafana_foundation_sdk"}


def declared(name: str) -> list[Requirement]:
    """The requirements of a list in setup.py, which is read and not run."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == name:
            return [Requirement(text) for text in ast.literal_eval(node.value)]
    raise AssertionError(f"setup.py has no {name}")


def environment_of(python: str) -> dict[str, str]:
    """What a marker is asked about, on Linux."""
    return {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}


def pins(lock: str, python: str) -> dict[str, Version]:
    """What `lock` installs on Linux with `python`."""
    environment = environment_of(python)
    found: dict[str, Version] = {}
    for match in PIN.finditer((ROOT / lock).read_text()):
        marker = match["marker"]
        if marker is None or Requirement(f"x ; {marker}").marker.evaluate(environment):  # type: ignore[union-attr]
            name = canonicalize_name(match["name"])
            assert name not in found, f"{lock} pins {name} twice for Python {python}"
            found[name] = Version(match["version"])
    return found


def imported() -> set[str]:
    """Top-level names of other people's modules that the packages import, lazily or not."""
    names: set[str] = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    names.update(alias.name.partition(".")[0] for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - set(PACKAGES)


def test_every_import_is_a_declared_dependency() -> None:
    names = {canonicalize_name(requirement.name) for requirement in declared("INSTALL_REQUIRES")}
    missing = {
        name
        for name in imported() - OF_DEVELOPERS
        if canonicalize_name(DISTRIBUTIONS.get(name, name)) not in names
    }
    assert not missing, f"imported, but not in setup.py's INSTALL_REQUIRES: {sorted(missing)}"


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(
    ("lock", "lists"),
    [
        ("requirements.txt", ["INSTALL_REQUIRES"]),
        ("requirements-dev.txt", ["INSTALL_REQUIRES", "MSK_REQUIRES", "DEV_REQUIRES"]),
    ],
)
def test_lock_pins_what_setup_declares(lock: str, lists: list[str], python: str) -> None:
    pinned = pins(lock, python)
    for requirement in (requirement for name in lists for requirement in declared(name)):
        if requirement.marker is not None and not requirement.marker.evaluate(environment_of(python)):
            continue
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{lock} lacks {requirement.name} for Python {python}: run `make lock`"
        assert version in requirement.specifier, f"{requirement} is pinned to {version}: run `make lock`"


@pytest.mark.parametrize("python", PYTHONS)
def test_development_lock_pins_the_versions_that_run(python: str) -> None:
    assert pins("requirements.txt", python).items() <= pins("requirements-dev.txt", python).items()


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_hashes_and_no_addresses_or_paths(lock: str) -> None:
    lines = (ROOT / lock).read_text().splitlines()
    for number, line in enumerate(lines):
        if "==" in line:
            assert lines[number + 1].startswith("    --hash=sha256:"), f"{line} has no hash"
    unexpected = [
        line for line in lines if not re.match(r"^(#|    --hash=sha256:[0-9a-f]{64}( \\)?$|\S+==)", line)
    ]
    assert unexpected == []
    assert not [line for line in lines if "://" in line or "file:" in line or "/" in line]


@pytest.mark.slow
def test_locks_are_complete() -> None:
    """They are installed with --no-deps: what they lack, nothing else brings."""
    command = [sys.executable, "-m", "pip", "check"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    "file",
    [
        "Makefile",
        "templates/Dockerfile",
        "templates/Dockerfile.machine",
        "templates/systemd/grantex-beam.service",
    ],
)
def test_locks_are_installed_as_they_are(file: str) -> None:
    """A pip before 23.3 looks for a package wanted with an extra beyond its pin, and then misses its hash."""
    installs = [line for line in (ROOT / file).read_text().splitlines() if "--require-hashes" in line]
    assert installs, f"{file} installs no lock any more"
    assert all("--no-deps" in line for line in installs), installs


def test_build_tools_are_pinned_as_the_build_system_asks() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    asked = re.search(r'requires = \["(setuptools[^"]*)"\]', text)
    assert asked is not None
    for python in PYTHONS:
        assert pins("requirements-build.txt", python)["setuptools"] in Requirement(asked[1]).specifier


@pytest.mark.slow
def test_archive_for_workers_has_the_packages_and_no_tests(tmp_path: Path) -> None:
    """Beam's --setup_file makes the same archive and installs it on every worker."""
    out = str(tmp_path)
    command = [sys.executable, "setup.py", "-q", "egg_info", "--egg-base", out, "sdist", "--dist-dir", out]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (packed,) = tmp_path.glob("grantex[-_]beam-*.tar.gz")  # setuptools 69 changed the hyphen
    with tarfile.open(packed) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"setup.py", "README.md", "pyproject.toml", "pipelines/stream.py", "transforms/py.typed"} <= names
    sources = {path.relative_to(ROOT).as_posix() for top in PACKAGES for path in (ROOT / top).rglob("*.py")}
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pipelines/local/page").iterdir()}
    assert len(page) >= 4
    assert sources | page <= names
    assert not [name for name in names if name.startswith("tests")]
