"""`provision s3` against moto (all of it, with rights) and SeaweedFS (another service with S3's protocol)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hcl2
import pytest

from pipelines.packs import retention, sql
from tests.pipelines.provision.conftest import Provisioning, Run
from tests.servers import moto
from tests.servers.moto import Moto
from tests.servers.seaweedfs import SeaweedFS

LOCKED = ("--retention=soc2", "--object_lock=governance")


class OfS3(Provisioning):
    def __init__(self, url: str, run: Run, bucket: str) -> None:
        super().__init__(run)
        self.url, self.bucket = url, bucket

    def __call__(self, *flags: str, **more: Any) -> int:
        usual = [f"--s3_bucket={self.bucket}", f"--s3_endpoint={self.url}", f"--s3_region={moto.REGION}"]
        return self.run("s3", *usual, *flags, **more)

    def lock(self) -> tuple[str, int]:
        """Mode and years; moto has days besides."""
        found = moto.client(self.url, "s3").get_object_lock_configuration(Bucket=self.bucket)
        default = found["ObjectLockConfiguration"]["Rule"]["DefaultRetention"]
        return default["Mode"], default["Years"]


def keys(monkeypatch: pytest.MonkeyPatch, access: str, secret: str) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)


@pytest.fixture
def provisioning(
    moto_server: Moto, run: Run, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OfS3]:
    keys(monkeypatch, "somebody", "who-may-all")
    bucket = f"made-{abs(hash(request.node.name)):x}"
    with moto.no_questions(moto_server.url):
        yield OfS3(moto_server.url, run, bucket)


def test_a_bucket_is_made_as_an_auditor_wants_it(provisioning: OfS3) -> None:
    assert provisioning("--yes=true", *LOCKED, "--athena_database=audit") == 0, provisioning.run.err
    s3, name = moto.client(provisioning.url, "s3"), provisioning.bucket
    closed = s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"]
    assert all(closed.values())
    assert len(closed) == 4
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    assert {each["ID"] for each in rules} == {"grantex-soc2", "grantex-soc2-markers"}
    assert provisioning.lock() == ("GOVERNANCE", 1)
    assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
    glue = moto.client(provisioning.url, "glue")
    table = glue.get_table(DatabaseName="audit", Name=sql.ATHENA_TABLE)["Table"]
    assert table["Parameters"]["projection.dt.type"] == "date"
    assert table["StorageDescriptor"]["Location"] == f"s3://{name}/grantex-events/"
    assert f'"Resource": "arn:aws:s3:::{name}/grantex-events/*"' in provisioning.out


def test_a_second_time_nothing_is_changed_and_it_says_so(provisioning: OfS3) -> None:
    assert provisioning("--yes=true", *LOCKED, "--athena_database=twice") == 0
    assert provisioning(*LOCKED, "--athena_database=twice") == 0  # and nothing is asked
    assert provisioning.run.lines[-1] == "nothing is to be done"
    assert "different" not in provisioning.out


def test_what_somebody_changed_is_shown_and_left_and_their_rules_stay(provisioning: OfS3) -> None:
    assert provisioning("--yes=true", "--retention=soc2") == 0
    s3, name = moto.client(provisioning.url, "s3"), provisioning.bucket
    rules = s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
    rules[0]["Expiration"]["Days"] = 30
    theirs = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "x/"}, "Expiration": {"Days": 1}}
    s3.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [*rules, theirs]})
    assert provisioning("--yes=true", "--retention=soc2") == 0
    assert "different   the lifecycle of SOC 2: 3 years" in provisioning.out
    assert "grantex-soc2.Expiration.Days: there 30, ours 1096" in provisioning.out
    assert s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"][0]["Expiration"]["Days"] == 30
    assert provisioning("--yes=true", "--retention=soc2", "--overwrite=true") == 0
    after = {each["ID"]: each for each in s3.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]}
    assert after.keys() == {"grantex-soc2", "grantex-soc2-markers", "theirs"}
    assert after["grantex-soc2"]["Expiration"]["Days"] == 1096


def test_the_rules_of_another_framework_are_a_difference_as_the_shorter_years_would_count(
    provisioning: OfS3,
) -> None:
    assert provisioning("--yes=true", "--retention=soc2") == 0
    assert provisioning("--yes=true", "--retention=hipaa") == 0
    assert "grantex-soc2: there {" in provisioning.out
    assert "grantex-hipaa: there nothing" in provisioning.out
    assert provisioning("--yes=true", "--retention=hipaa", "--overwrite=true") == 0
    s3 = moto.client(provisioning.url, "s3")
    rules = s3.get_bucket_lifecycle_configuration(Bucket=provisioning.bucket)["Rules"]
    assert [each["ID"] for each in rules] == ["grantex-hipaa", "grantex-hipaa-markers"]


def test_compliance_is_asked_for_twice(provisioning: OfS3) -> None:
    flags = ("--retention=hipaa", "--object_lock=compliance")
    asked: list[str] = []

    @contextmanager
    def answering(*answers: str) -> Iterator[Any]:
        left = list(answers)

        def ask(question: str) -> str:
            asked.append(question)
            return left.pop(0)

        yield ask
        assert not left

    with answering("y", "yes") as ask:
        assert provisioning(*flags, ask=ask) == 1  # a second yes is not enough
    assert "locked for 6 years" in asked[1]
    assert "NOBODY can take that back" in asked[1]
    assert "nothing was done" in provisioning.out
    assert provisioning("--yes=true", *flags) == 2
    assert (
        f"--lock_for_ever={provisioning.bucket}: is needed where nobody can be asked" in provisioning.run.err
    )
    assert provisioning.bucket not in [
        each["Name"] for each in moto.client(provisioning.url, "s3").list_buckets()["Buckets"]
    ]
    with answering("y", provisioning.bucket) as ask:
        assert provisioning(*flags, ask=ask) == 0
    assert provisioning.lock() == ("COMPLIANCE", 6)
    assert provisioning(*flags) == 0  # it is there: nothing to be asked


def test_compliance_without_a_person_names_the_bucket_again(provisioning: OfS3) -> None:
    flags = ("--retention=soc2", "--object_lock=compliance", f"--lock_for_ever={provisioning.bucket}")
    assert provisioning("--yes=true", *flags) == 0
    assert provisioning.lock() == ("COMPLIANCE", 1)


def test_what_may_have_to_be_erased_is_not_locked(provisioning: OfS3) -> None:
    assert provisioning("--yes=true", "--retention=gdpr", "--object_lock=governance") == 2
    assert "--object_lock: cannot be with --retention=gdpr: No Object Lock" in provisioning.run.err
    assert provisioning("--yes=true", "--object_lock=governance") == 2
    assert "--object_lock: needs --retention" in provisioning.run.err


def test_missing_rights_and_wrong_keys_are_one_line(
    moto_server: Moto, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    provisioning = OfS3(moto_server.url, run, "not-ours")
    keys(monkeypatch, moto_server.access_key, moto_server.secret_key)
    assert provisioning("--yes=true") == 1
    assert run.err.count("\n") == 1
    assert "these credentials may not" in run.err
    keys(monkeypatch, moto_server.access_key, "wrong-secret-key")
    assert provisioning("--yes=true") == 1
    assert "wrong-secret-key" not in run.err
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    assert provisioning("--yes=true") == 1
    assert "there are no AWS credentials" in run.err


def test_another_service_gets_what_it_knows(
    seaweedfs: SeaweedFS, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys(monkeypatch, seaweedfs.access_key, seaweedfs.secret_key)
    provisioning = OfS3(seaweedfs.endpoint, run, "provisioned")
    assert provisioning("--yes=true", "--retention=soc2") == 1
    assert "made        the bucket provisioned" in provisioning.out
    assert "REFUSED     closed to the public: this service has no such thing" in provisioning.out
    assert "provisioned" in [each["Name"] for each in seaweedfs.client().list_buckets()["Buckets"]]
    assert provisioning("--yes=true") == 0
    assert "by hand     access: this service has no such thing (NotImplemented)" in provisioning.out
    assert provisioning.run.lines[-1] == "nothing is to be done"


def test_printed_it_is_terraform_json_and_sql(run: Run, tmp_path: Path) -> None:
    flags = ("--s3_bucket=audit", "--s3_kms_key=alias/archive", *LOCKED, "--print=true")
    assert run("s3", *flags, f"--into={tmp_path}") == 0
    made = hcl2.loads((tmp_path / "main.tf").read_text())
    kinds = {name.strip('"') for each in made["resource"] for name in each}
    assert "aws_s3_bucket_object_lock_configuration" in kinds
    assert json.loads((tmp_path / "lifecycle.json").read_text()) == retention.s3_lifecycle(
        retention.framework("soc2")
    )
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert [each["Action"] for each in policy["Statement"]] == ["s3:PutObject", "kms:GenerateDataKey"]
    assert "LOCATION 's3://audit/grantex-events/'" in (tmp_path / "athena_table.sql").read_text()
