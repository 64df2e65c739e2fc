"""The wheel in an environment that has nothing but it and the lock of one machine: it delivers from there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.evidence import ids_in_files
from tests.integration.job import ROOT, Job, World, free_port
from tests.servers.process import cache_directory, fetch, pip_install

BUILD = "from setuptools import build_meta; print(build_meta.build_wheel({out!r}))"
INSTALL_SECONDS = 600.0  # half a minute of an idle machine
RENDER = "from pipelines.packs import splunk; assert splunk.__file__.startswith({place!r}); print('rendered')"


def wheel(place: Path) -> Path:
    """Built as a build front end does it, from a copy: the source tree is not touched."""
    source = place / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "MANIFEST.in", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("pipelines", "transforms"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-c", BUILD.format(out=str(place))]
    subprocess.run(command, cwd=source, check=True, capture_output=True, timeout=120)
    [made] = place.glob("grantex_beam-*.whl")
    return made


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel(tmp_path_factory.mktemp("wheel"))


def test_a_wheel_has_all_code_and_the_page_and_no_tests(built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith("LICENSE")]
    files = {
        path for top in ("pipelines", "transforms") for path in (ROOT / top).rglob("*") if path.is_file()
    }
    wanted = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    assert names == wanted
    assert {"pipelines/local/page/index.html", "pipelines/packs/detections/grants.py"} <= names
    assert licences


def locked() -> Path:
    """What the lock of one machine installs, kept for as long as the lock stays as it is."""
    lock = (ROOT / "requirements-machine.txt").read_text()
    digest = hashlib.sha256(f"{lock} {sys.version}".encode()).hexdigest()[:12]
    directory = cache_directory(f"machine-{digest}")
    pip_install(directory, lock, INSTALL_SECONDS)
    return directory


@pytest.mark.timeout(1500)
def test_it_installs_and_delivers_where_nothing_else_is(built: Path, around: World, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    without_pip = [sys.executable, "-m", "venv", "--without-pip", str(home)]  # ours installs into it as well
    fetch(without_pip, "no virtual environment can be made", INSTALL_SECONDS)
    [site] = home.glob("lib/python*/site-packages")
    (site / "lock.pth").write_text(f"import site; site.addsitedir({str(locked())!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", str(home / "bin/python")]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-compile"]
    subprocess.run([*install, "--no-index", str(built)], check=True, capture_output=True, timeout=120)

    environment = {**around.environment, "PATH": os.defpath, "HOME": str(tmp_path)}
    program = str(home / "bin/grantex-beam")
    for arguments in (["--version"], ["--help"], ["where", "--help"], ["provision", "--help"]):
        command = [program, *arguments]
        said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
        assert said.stdout
    python = [str(home / "bin/python"), "-c", RENDER.format(place=str(home))]
    rendered = subprocess.run(
        python, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert rendered.stdout == "rendered\n", rendered.stderr

    port = free_port()
    flags = around.flags(status_port=port)
    with (tmp_path / "log").open("wb") as log, around.feed.publishing(100.0):
        process = subprocess.Popen(
            [program, *flags], cwd=tmp_path, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        job = Job(process, tmp_path / "log", port, 0)
        try:
            job.wait_until(lambda: len(around.splunk.events) > 100, "it delivers", timeout=60.0)
            for path in ("/", "/page.js", "/page.css", "/icon.svg"):
                assert job.get(path)[0] == 200, path
        except BaseException:
            print(job.log)
            job.kill()
            raise
    try:
        job.wait_until_settled("files", "splunk")
        assert job.drain() == 0, job.log
    finally:
        job.kill()
    published = around.feed.sent_ids
    assert {event.event_id for event in around.splunk.events} == published
    assert sorted(ids_in_files(around.out)) == sorted(published)
