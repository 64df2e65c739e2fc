"""`provision gcs` against an emulator of Cloud Storage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hcl2
import httpx
import pytest

from pipelines.packs import retention
from pipelines.practice.http_server import Answer, HttpServer, Request
from tests.pipelines.provision.conftest import Run
from tests.servers.gcs import GoogleStorage

# The emulator says US of every bucket.
MADE = ("--gcs_project=practice", "--gcs_location=US")


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleStorage]:
    from tests.servers.gcs import running

    with running(tmp_path_factory.mktemp("gcs") / "log") as server:
        yield server


def bucket(storage: GoogleStorage, name: str) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{storage.endpoint}/storage/v1/b/{name}").raise_for_status().json()
    return found


@pytest.mark.servers
def test_a_bucket_is_made_once_and_differences_are_shown(storage: GoogleStorage, run: Run) -> None:
    flags = ["--gcs_bucket=audit", f"--gcs_endpoint={storage.endpoint}", "--retention=soc2"]
    flags.append("--object_lock=governance")
    assert run("gcs", *flags, "--yes=true") == 2
    assert "--gcs_project: is missing, and the bucket audit is to be made" in run.err
    assert run("gcs", *flags, *MADE, "--yes=true") == 0, run.err
    made = bucket(storage, "audit")
    assert made["iamConfiguration"]["uniformBucketLevelAccess"] == {"enabled": True}
    assert made["lifecycle"] == retention.gcs_lifecycle(retention.framework("soc2"))["lifecycle"]
    assert made["retentionPolicy"]["retentionPeriod"] == str(366 * 86_400)
    assert "roles/storage.objectCreator" in run.out
    assert run("gcs", *flags) == 0  # and nothing is asked
    assert run.lines[-1] == "nothing is to be done"
    made["lifecycle"]["rule"][-1]["condition"]["age"] = 10
    url = f"{storage.endpoint}/storage/v1/b/audit"
    httpx.patch(url, json={"lifecycle": made["lifecycle"]}).raise_for_status()
    assert run("gcs", *flags, "--yes=true") == 0
    assert "condition.age: there 10, ours 1096" in run.out
    assert bucket(storage, "audit")["lifecycle"]["rule"][-1]["condition"]["age"] == 10
    assert run("gcs", *flags, "--yes=true", "--overwrite=true") == 0
    assert bucket(storage, "audit")["lifecycle"]["rule"][-1]["condition"]["age"] == 1096


class Locking(HttpServer):
    """A bucket whose retention policy can be locked, as the emulator's cannot; it may refuse."""

    def __init__(self, status: int = 200) -> None:
        super().__init__()
        self.bucket: dict[str, Any] = {}
        self.status = status
        self.locked_at = ""

    def judge(self, request: Request) -> Answer:
        if self.status != 200:
            body = {
                "error": {"message": "NAME does not have storage.buckets.get access.", "code": self.status}
            }
            return Answer(self.status, json.dumps(body).encode())
        if request.path.endswith("/lockRetentionPolicy"):
            self.locked_at = request.query
            self.bucket["retentionPolicy"]["isLocked"] = True
        elif request.method in ("POST", "PATCH"):
            self.bucket |= json.loads(request.body)
            self.bucket["metageneration"] = "7"
        return Answer(200 if self.bucket else 404, json.dumps(self.bucket).encode())


def test_a_lock_for_ever_is_asked_for_twice(run: Run) -> None:
    with Locking() as service:
        flags = ["--gcs_bucket=audit", f"--gcs_endpoint={service.url}", *MADE, "--retention=hipaa"]
        flags.append("--object_lock=compliance")
        assert run("gcs", *flags, "--yes=true") == 2
        assert "--lock_for_ever=audit: is needed" in run.err
        assert service.bucket == {}
        answers = iter(["y", "audit"])
        assert run("gcs", *flags, ask=lambda question: next(answers)) == 0, run.err
        assert service.bucket["retentionPolicy"]["isLocked"]
        assert service.locked_at == "ifMetagenerationMatch=7"
        assert run("gcs", *flags) == 0
        assert run.lines[-1] == "nothing is to be done"


@pytest.mark.parametrize(
    ("status", "said"), [(403, "they need the role Storage Admin"), (401, "gcloud auth")]
)
def test_what_google_refuses_is_one_line(run: Run, status: int, said: str) -> None:
    with Locking(status) as service:
        assert run("gcs", "--gcs_bucket=audit", f"--gcs_endpoint={service.url}", *MADE) == 1
    assert run.err.count("\n") == 1
    assert said in run.err


def test_printed_it_is_terraform(run: Run, tmp_path: Path) -> None:
    flags = ("--gcs_bucket=audit", "--retention=hipaa", "--object_lock=compliance", "--print=true")
    assert run("gcs", *flags, f"--into={tmp_path}") == 0
    made = hcl2.loads((tmp_path / "main.tf").read_text())
    kinds = {name.strip('"') for each in made["resource"] for name in each}
    assert kinds == {"google_storage_bucket", "google_storage_bucket_iam_member"}
    assert "is_locked = true" in (tmp_path / "main.tf").read_text()
    lifecycle = json.loads((tmp_path / "lifecycle.json").read_text())
    assert lifecycle == retention.gcs_lifecycle(retention.framework("hipaa"))
