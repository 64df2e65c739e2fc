"""Flink and Beam's runner for it, once from PyPI and Maven's repository, kept outside the source tree."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

from tests.servers.process import cache_directory, fetch, install_once, unavailable

FLINK, BEAM = "1.19.3", "2.62.0"
CACHE = f"flink-{FLINK}-beam-{BEAM}"
DOWNLOAD_SECONDS = 900
PROGRAMS = ("java", "mvn")
LIBRARIES = (
    f"apache-flink-libraries=={FLINK} "
    "--hash=sha256:4a58e3a1fb7d83340bc96b6c080624c6d792d69fae5d294b96224775204a9c60\n"
)
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>flink</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.beam</groupId><artifactId>beam-runners-flink-1.19</artifactId>
      <version>{BEAM}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
      <version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def install() -> Path:
    """The directory with `flink/lib`, `flink/bin` and `beam`. Skips the test, or fails it under CI."""
    directory = cache_directory(CACHE)
    with install_once(directory) as missing:
        if missing:
            for program in PROGRAMS:
                if shutil.which(program) is None:
                    unavailable(f"Flink needs {program} (Debian: apt install default-jre-headless maven)")
            _beam(directory)
            _libraries(directory)
    return directory


def _beam(directory: Path) -> None:
    (directory / "pom.xml").write_text(POM)
    command = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={directory / 'beam'}"]
    fetch(command, "Beam's runner for Flink cannot be downloaded", DOWNLOAD_SECONDS, cwd=directory)


def _libraries(directory: Path) -> None:
    """Flink's jars are in a source package of PyPI, of which nothing is run."""
    (directory / "flink.txt").write_text(LIBRARIES)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-build-isolation"]
    command += ["--require-hashes", "--dest", str(directory), "-r", "flink.txt"]
    fetch(command, "Flink cannot be downloaded", DOWNLOAD_SECONDS, cwd=directory)
    package = next(directory.glob("apache*flink*libraries*.tar.gz"))
    with tarfile.open(package) as archive:
        for member in archive:
            kept = member.name.partition("/deps/")[2]
            if member.isfile() and kept.startswith(("lib/", "bin/")):
                member.name = f"flink/{kept}"
                archive.extract(member, directory, filter="data")
    package.unlink()
