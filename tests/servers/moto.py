"""moto's server: S3, STS, IAM and KMS that check signatures, policies and roles' trust, on loopback.

It proves what SeaweedFS has no notion of. Faithful here in AssumeRole with its external id, in who may put
where, in KMS and storage class as they come back, and in the codes of refusals.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.servers.process import ServerProcess, cache_directory, free_port, listens, pip_install

REQUIREMENTS = Path(__file__).with_name("moto.txt")
VERSION = "5.2.5"
ACCOUNT = "123456789012"
REGION = "us-east-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/archive"
EXTERNAL_ID = "what-the-owner-asked-for"
USER = "base"
BUCKET = "archive"


@dataclass(frozen=True)
class Moto:
    """A running server. The user whose key is here may do nothing but assume ROLE, which may put objects into
    BUCKET (Object Lock is on) and use `kms_key`."""

    url: str
    access_key: str
    secret_key: str
    kms_key: str

    def objects(self) -> list[dict[str, Any]]:
        """What HeadObject says of everything in BUCKET."""
        with no_questions(self.url):
            s3 = client(self.url, "s3")
            keys = [one["Key"] for one in s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
            return [{"Key": key, **s3.head_object(Bucket=BUCKET, Key=key)} for key in keys]

    def empty(self) -> None:
        """Remove everything from BUCKET."""
        with no_questions(self.url):
            s3 = client(self.url, "s3")
            for version in s3.list_object_versions(Bucket=BUCKET).get("Versions", ()):
                s3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])


@contextlib.contextmanager
def running(log: Path) -> Iterator[Moto]:
    """Skips the test, or fails under CI, when it cannot be had."""
    packages = cache_directory(f"moto-{VERSION}-py{sys.version_info.major}.{sys.version_info.minor}")
    pip_install(packages, REQUIREMENTS.read_text())
    port = free_port()
    command = [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1"]
    path = os.pathsep.join(filter(None, (str(packages), os.environ.get("PYTHONPATH"))))
    with ServerProcess([*command, "-p", str(port)], log, env={"PYTHONPATH": path}) as process:
        process.wait_until(lambda: listens(port), "moto")
        yield furnished(f"http://127.0.0.1:{port}")
        process.kill()


def furnished(url: str) -> Moto:
    """Make user, role, bucket and key, and ask everybody for signature and rights from now on."""
    iam, s3, kms = (client(url, service) for service in ("iam", "s3", "kms"))
    user = iam.create_user(UserName=USER)["User"]["Arn"]
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    assume = allow("sts:AssumeRole", ROLE)
    iam.put_user_policy(UserName=USER, PolicyName="assume", PolicyDocument=policy(assume))
    condition = {"StringEquals": {"sts:ExternalId": EXTERNAL_ID}}
    trust = {"Effect": "Allow", "Principal": {"AWS": user}, "Action": "sts:AssumeRole"}
    document = policy({**trust, "Condition": condition})
    name = ROLE.rpartition("/")[2]
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)
    put = allow("s3:PutObject", "*")
    iam.put_role_policy(RoleName=name, PolicyName="put", PolicyDocument=policy(put))
    s3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    kms_key = kms.create_key()["KeyMetadata"]["KeyId"]
    ask(url, True)
    return Moto(url, key["AccessKeyId"], key["SecretAccessKey"], kms_key)


def client(url: str, service: str) -> Any:
    """A boto3 client of the test's own."""
    import boto3

    nobody = {"aws_access_key_id": "nobody", "aws_secret_access_key": "nothing"}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **nobody)


def ask(url: str, rights: bool) -> None:
    """Check who asks from now on, or do not."""
    httpx.post(f"{url}/moto-api/reset-auth", content=b"0" if rights else b"inf").raise_for_status()


@contextlib.contextmanager
def no_questions(url: str) -> Iterator[None]:
    ask(url, False)
    try:
        yield
    finally:
        ask(url, True)


def allow(action: str, resource: str) -> dict[str, object]:
    return {"Effect": "Allow", "Action": action, "Resource": resource}


def policy(statement: dict[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
