"""Images built where no registry of images can be reached: the base is made of Debian's packages.

As root, with Debian's `buildah` and `debootstrap`. A container is a chroot in a mount namespace of its own,
with what the image says about itself (user, entry point, variables, directory) and a root that is read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.process import cache_directory, fetch, install_once, unavailable

SUITE = "bookworm"
BASE = f"localhost/python-on-debian:{SUITE}"
PACKAGES = "python3,python3-venv"
BASE_SECONDS, BUILD_SECONDS = 900.0, 1800.0
# What this machine trusts, for pip inside a build.
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
INSIDE = "/etc/authorities.crt"


def buildah(*arguments: str) -> str:
    """What it prints. Raises AssertionError."""
    done = subprocess.run(_command(*arguments), capture_output=True, text=True, check=False)
    assert not done.returncode, f"buildah {' '.join(arguments)}: {(done.stderr or done.stdout)[-3000:]}"
    return done.stdout.strip()


def _command(*arguments: str) -> list[str]:
    home = cache_directory("buildah")
    places = ["--root", str(home / "images"), "--runroot", str(home / "run"), "--storage-driver", "vfs"]
    return ["buildah", *places, *arguments]


def base() -> str:
    """The name of an image of Debian with Python, made once. Skips or fails as `unavailable`."""
    for program in ("buildah", "debootstrap"):
        if shutil.which(program) is None:
            unavailable(f"{program} is not installed (Debian: apt install {program})")
    if os.geteuid():
        unavailable("a base image is made by debootstrap, and only root can")
    with install_once(cache_directory(f"buildah/{SUITE}")) as missing:
        if missing:
            _make_base()
    return BASE


def _make_base() -> None:
    codename = f"Codename: {SUITE}"
    asked = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", codename]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split()
    with tempfile.TemporaryDirectory(dir=cache_directory("buildah")) as work:
        tree = Path(work) / "tree"
        # What it mounts in the tree is gone with it, however it ends.
        command = ["unshare", "--mount", "debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE]
        fetch([*command, str(tree), *found[:1]], "debootstrap cannot make a base image", BASE_SECONDS)
        for rest in ("var/cache/apt", "var/lib/apt/lists"):
            shutil.rmtree(tree / rest)
        container = buildah("from", "scratch")
        buildah("copy", "--quiet", container, str(tree), "/")
        buildah("commit", "--quiet", container, BASE)
        buildah("rm", container)


@dataclass(frozen=True)
class Image:
    """A built image, and its files at `root` until the block of `built` ends."""

    root: Path
    size: int  # bytes, the base included
    base_size: int
    config: Mapping[str, Any]  # as Docker's format has it

    def command(self, state: Path, environment: Mapping[str, str], arguments: Sequence[str]) -> list[str]:
        """Runs its entry point as its user, its volume being `state`; the process keeps its id."""
        [volume] = self.config["Volumes"]
        variables = [*self.config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        inside = ["env", "-i", f"--chdir={self.config['WorkingDir']}", *variables]
        mounts = [
            "mount --make-rprivate /",
            "mount --bind {root} {root}",
            "mount -o remount,bind,ro {root}",
            "mount -t tmpfs -o mode=1777 tmpfs {root}/tmp",
            "mount --bind {state} {root}{volume}",
            "mount -t proc proc {root}/proc",
            "mount --rbind /dev {root}/dev",
        ]
        places = {"root": str(self.root), "state": str(state), "volume": volume}
        script = " && ".join(each.format(**places) for each in mounts)
        rest = [*self._as_user(), *inside, *self.config["Entrypoint"], *arguments]
        return ["unshare", "--mount", "sh", "-c", f"{script} && exec {shlex.join(rest)}"]

    def is_healthy(self, environment: Mapping[str, str]) -> bool:
        """What its own check says of the job that this environment leads to."""
        kind, *check = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        variables = [f"{name}={value}" for name, value in environment.items()]
        command = [*self._as_user(), "env", "-i", *variables, *check]
        return not subprocess.run(command, check=False, capture_output=True, timeout=30).returncode

    def _as_user(self) -> list[str]:
        return ["setpriv", "--no-new-privs", "chroot", f"--userspec={self.config['User']}", str(self.root)]


@contextlib.contextmanager
def built(context: Path, file: Path) -> Iterator[Image]:
    """Build `file` on Debian's Python in place of its own base."""
    name = f"localhost/{file.name.lower()}:test"
    arguments = ["--isolation", "chroot", "--format", "docker", "--build-arg", f"BASE={base()}"]
    if AUTHORITIES.exists():
        settings = cache_directory("buildah") / "pip.conf"
        settings.write_text(f"[global]\ncert = {INSIDE}\n")
        arguments += ["--volume", f"{AUTHORITIES}:{INSIDE}:ro", "--volume", f"{settings}:/etc/pip.conf:ro"]
    command = _command("bud", "--quiet", *arguments, "--file", str(file), "--tag", name, str(context))
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert not done.returncode, f"{file.name} cannot be built: {(done.stderr or done.stdout)[-5000:]}"
    container = buildah("from", "--pull-never", name)
    try:
        config = json.loads(buildah("inspect", "--type", "image", name))["Docker"]["config"]
        yield Image(Path(buildah("mount", container)), _size(name), _size(BASE), config)
    finally:
        buildah("umount", container)
        buildah("rm", container)


def _size(name: str) -> int:
    size = json.loads(buildah("images", "--json", name))[0]["size"]
    number, unit = re.fullmatch(r"([\d.]+) ?([kMG]?)B", size).groups()  # type: ignore[union-attr]
    return round(float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit])
