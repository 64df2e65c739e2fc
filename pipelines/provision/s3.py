"""`provision s3`: bucket, encryption, lifecycle, Object Lock, a table for Athena; the job's least rights."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pipelines.flags.provision import OfS3, program
from pipelines.flags.settings import Settings
from pipelines.packs import retention, sql
from pipelines.provision import buckets, terraform
from pipelines.provision.plan import CannotProvision, Plan, Refused, Thing, plan_of, unreachable
from transforms.secret import shown
from transforms.write.s3.destination import S3

ABOUT = """
Sets up a bucket of S3 for the archive: closed to the public, encrypted, with the lifecycle of --retention,
Object Lock when --object_lock says so, and a table for Athena in --athena_database. Credentials come from
boto3's usual chain (--s3_role_arn is the job's, and not used here). What is there already is left alone; what
somebody made otherwise is shown. Exit code 0: it is as shown, or was; 1: it is not; 2: wrong parameters.
"""
USES = "s3_bucket s3_prefix s3_region s3_endpoint s3_kms_key s3_layout s3_role_arn"
PROGRAM = program("s3", ABOUT, USES, asks=OfS3)
CLOSED = {
    "BlockPublicAcls": True,
    "IgnorePublicAcls": True,
    "BlockPublicPolicy": True,
    "RestrictPublicBuckets": True,
}
# What says that a bucket has no such setting yet.
UNSET = (
    "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
    "NoSuchLifecycleConfiguration",
    "ObjectLockConfigurationNotFoundError",
    "EntityNotFoundException",
)
MISSING = ("404", "NoSuchBucket", "NotFound")
REGION = "us-east-1"  # the one without a LocationConstraint


class Unsupported(Refused):
    """Another service with S3's protocol does not have this part of it."""


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    bucket = Bucket(buckets.needed(settings, "s3"), settings)
    looked = {what: _looked(look) for what, look in _looks(settings, bucket).items()}
    things = [bucket.itself(), *(each for each in looked.values() if isinstance(each, Thing))]
    by_hand = [f"{what}: {why}" for what, why in looked.items() if isinstance(why, str)]
    if settings["athena_database"]:
        things += _athena(settings, bucket)
    return plan_of(str(bucket), things, [*_by_hand(settings), *by_hand], settings["overwrite"])


def _looked(look: Callable[[], Thing]) -> Thing | str:
    """What was found, or why it cannot be had there."""
    try:
        return look()
    except Unsupported as error:
        return str(error)


def _looks(settings: Settings, bucket: Bucket) -> Mapping[str, Callable[[], Thing]]:
    """What is looked for in the bucket."""
    looks: dict[str, Callable[[], Thing]] = {"access": bucket.closed, "encryption": bucket.encrypted}
    kept, lock = buckets.years(settings), settings["object_lock"]
    if kept:
        looks["lifecycle"] = lambda: bucket.lifecycle(kept)
    if kept and lock != "off":
        looks["versions"] = bucket.versions
        looks["Object Lock"] = lambda: bucket.locked(kept, lock.upper())
    return looks


def files(settings: Settings) -> Mapping[str, str]:
    """Terraform with the JSON that it reads, and SQL for Athena."""
    name, kept = buckets.needed(settings, "s3"), buckets.years(settings)
    rules = retention.s3_lifecycle(kept, buckets.prefix(settings, "s3")) if kept else {"Rules": []}
    found = {
        "policy.json": _json(least_rights(settings)),
        "main.tf": terraform.s3(name, settings["s3_region"], settings["s3_kms_key"], settings["object_lock"]),
        "lifecycle.json": _json(rules),
    }
    if kept and settings["object_lock"] != "off":
        found["object_lock.json"] = _json(retention.s3_object_lock(kept, settings["object_lock"].upper()))
    if settings["s3_layout"] == "hive":
        found["athena_table.sql"] = sql.athena_table(location=_location(settings))
        found["athena_views.sql"] = "\n".join(sql.athena_views().values())
    return found


def least_rights(settings: Settings) -> Mapping[str, Any]:
    """The job's policy: to put objects below its prefix, and nothing else."""
    place = f"arn:aws:s3:::{settings['s3_bucket']}/{buckets.prefix(settings, 's3')}*"
    statements: list[dict[str, Any]] = [{"Effect": "Allow", "Action": "s3:PutObject", "Resource": place}]
    if kms_key := settings["s3_kms_key"]:
        key = kms_key if kms_key.startswith("arn:") else "*"
        statements.append({"Effect": "Allow", "Action": "kms:GenerateDataKey", "Resource": key})
    return {"Version": "2012-10-17", "Statement": statements}


def _json(body: Any) -> str:
    return json.dumps(body, indent=2) + "\n"


def _location(settings: Settings) -> str:
    return f"s3://{settings['s3_bucket']}/{buckets.prefix(settings, 's3')}".rstrip("/")


def _by_hand(settings: Settings) -> list[str]:
    policy = json.dumps(least_rights(settings))
    role = (settings["s3_role_arn"] or "").rpartition("/")[2] or "ROLE"
    lines = [
        f"the job's own right, and no more: aws iam put-role-policy --role-name {role} --policy-name "
        f"grantex-beam --policy-document '{policy}'",
        *buckets.left_out(settings),
    ]
    if settings["s3_layout"] != "hive":
        return [*lines, "Athena needs --s3_layout=hive, whose directories its table goes by"]
    views = "--print=true has views for it in athena_views.sql, one statement at a time"
    return [
        *lines,
        f"Athena: {views}" if settings["athena_database"] else f"Athena: --athena_database=grantex; {views}",
    ]


class Bucket:
    """One bucket, and each setting of it as a thing. Raises CannotProvision, also of every method."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name, self._settings = name, settings
        self._region = settings["s3_region"]
        self._at = settings["s3_endpoint"] or "AWS"
        with self.asking("look at the bucket"):
            self.s3 = self.client("s3")
            self._region = self._region or self.s3.meta.region_name
            self.is_there = self._unless(MISSING, lambda: self.s3.head_bucket(Bucket=name)) is not None

    def __str__(self) -> str:
        return f"S3 bucket {self.name} at {self._at}, region {self._region}"

    def client(self, service: str) -> Any:
        """As the job's, but as nobody's role: that one may put objects, and this makes buckets."""
        from transforms.write.s3.writer import new_client

        settings = self._settings
        own = S3(
            bucket=self.name,
            region=settings["s3_region"],
            endpoint=settings["s3_endpoint"],
            way_out=settings.way_out,
        )
        return new_client(own, attempts=3, service=service)

    def itself(self) -> Thing:
        where = {"LocationConstraint": self._region}
        # S3 takes it for no location when a bucket is made in its first region.
        body = {} if self._region == REGION else {"CreateBucketConfiguration": where}
        lock = {"ObjectLockEnabledForBucket": True} if self._settings["object_lock"] != "off" else {}
        make = self._doing("s3:CreateBucket", lambda: self.s3.create_bucket(Bucket=self.name, **body, **lock))
        return Thing(f"the bucket {self.name}", {}, {} if self.is_there else None, make)

    def closed(self) -> Thing:
        found = self._found("s3:GetBucketPublicAccessBlock", self.s3.get_public_access_block)
        put = self._doing(
            "s3:PutBucketPublicAccessBlock",
            lambda: self.s3.put_public_access_block(Bucket=self.name, PublicAccessBlockConfiguration=CLOSED),
        )
        there = found and found["PublicAccessBlockConfiguration"]
        return Thing("closed to the public", CLOSED, there, put, put)

    def encrypted(self) -> Thing:
        """By the key that is given, or S3's own; a bucket of AWS has that from the start."""
        key = self._settings["s3_kms_key"]
        default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key} if key else {"SSEAlgorithm": "AES256"}
        rules = [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bool(key)}]
        found = self._found("s3:GetEncryptionConfiguration", self.s3.get_bucket_encryption)
        there = found and found["ServerSideEncryptionConfiguration"]["Rules"][0]
        put = self._doing(
            "s3:PutEncryptionConfiguration",
            lambda: self.s3.put_bucket_encryption(
                Bucket=self.name, ServerSideEncryptionConfiguration={"Rules": rules}
            ),
        )
        what = f"encrypted by {'the KMS key' if key else 'keys of S3'}"
        return Thing(what, {"ApplyServerSideEncryptionByDefault": default}, there, put, put)

    def lifecycle(self, kept: retention.Framework) -> Thing:
        """Our rules. Others of the bucket stay; of two frameworks' the shorter years would count, so that
        those of another one are a difference."""
        rules = retention.s3_lifecycle(kept, buckets.prefix(self._settings, "s3"))["Rules"]
        found = self._found("s3:GetLifecycleConfiguration", self.s3.get_bucket_lifecycle_configuration) or {}
        all_there = {rule.get("ID", ""): rule for rule in found.get("Rules", ())}
        ours = {name: rule for name, rule in all_there.items() if name.startswith(retention.RULES)}
        theirs = [rule for name, rule in all_there.items() if name not in ours]
        put = self._doing(
            "s3:PutLifecycleConfiguration",
            lambda: self.s3.put_bucket_lifecycle_configuration(
                Bucket=self.name, LifecycleConfiguration={"Rules": [*theirs, *rules]}
            ),
        )
        wanted = {**dict.fromkeys(ours), **{rule["ID"]: rule for rule in rules}}
        what = f"the lifecycle of {kept.title}: {buckets.counted(kept.advised)}"
        return Thing(what, wanted, ours or None, put, put)

    def versions(self) -> Thing:
        """Object Lock needs them; a bucket that is made with it has them."""
        found = self._found("s3:GetBucketVersioning", self.s3.get_bucket_versioning) or {}
        on = {"Status": "Enabled"}
        put = self._doing(
            "s3:PutBucketVersioning",
            lambda: self.s3.put_bucket_versioning(Bucket=self.name, VersioningConfiguration=on),
        )
        return Thing("versions of objects", on, on if found.get("Status") == "Enabled" else None, put)

    def locked(self, kept: retention.Framework, mode: str) -> Thing:
        wanted = retention.s3_object_lock(kept, mode)
        found = self._found("s3:GetBucketObjectLockConfiguration", self.s3.get_object_lock_configuration)
        there = (found or {}).get("ObjectLockConfiguration")
        there = there if there and there.get("Rule") else None  # allowed, and nothing locked yet
        put = self._doing(
            "s3:PutBucketObjectLockConfiguration",
            lambda: self.s3.put_object_lock_configuration(Bucket=self.name, ObjectLockConfiguration=wanted),
        )
        what = f"Object Lock, {mode}, {buckets.counted(kept.least)} from each object's writing"
        return Thing(what, wanted, there, put, put, for_ever=buckets.for_ever(self._settings, self.name))

    def _found(self, right: str, ask: Callable[..., Any]) -> Any:
        """What a setting of the bucket is, None without one."""
        if not self.is_there:
            return None
        with self.asking(right):
            return self._unless(UNSET, lambda: ask(Bucket=self.name))

    def _doing(self, right: str, deed: Callable[[], Any]) -> Callable[[], None]:
        def do() -> None:
            with self.asking(right):
                deed()

        return do

    def _unless(self, codes: tuple[str, ...], ask: Callable[[], Any]) -> Any:
        from botocore.exceptions import ClientError  # type: ignore[import-untyped]

        try:
            return ask()
        except ClientError as error:
            if error.response["Error"]["Code"] not in codes:
                raise
            return None

    @contextlib.contextmanager
    def asking(self, right: str) -> Iterator[None]:
        """Inside, AWS is asked: what it refuses is a CannotProvision. right: what that takes."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        from transforms.write.s3.writer import NoWayOut

        try:
            yield
        except NoCredentialsError:
            raise CannotProvision(
                "there are no AWS credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or run `aws sso login`"
            ) from None
        except ClientError as error:
            raise _refused(error, right, str(self)) from None
        except (BotoCoreError, NoWayOut, OSError) as error:
            raise unreachable(self._at, error) from None


def _refused(error: Any, right: str, where: str) -> CannotProvision:
    code, words = error.response["Error"]["Code"], shown(error.response["Error"].get("Message", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidClientTokenId"):
        return CannotProvision(
            f"{where} refused the AWS credentials ({code}): renew them (`aws sso login`, say)"
        )
    if status == 403 or "AccessDenied" in code:
        return Refused(f"these credentials may not ({code} {words}): they need {right}")
    if status in (405, 501) or code == "NotImplemented":
        return Unsupported(f"this service has no such thing ({code})")
    if status == 301 or code in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return CannotProvision(
            f"{where}: the bucket is in another region; give it with --s3_region ({words})"
        )
    return Refused(f"{right}: {code}: {words}")


# Athena


def _athena(settings: Settings, bucket: Bucket) -> Iterator[Thing]:
    """Database and table in Glue's catalogue; partitions are projected, so that none is ever added."""
    if settings["s3_layout"] != "hive":
        return
    database = settings["athena_database"]
    glue = bucket.client("glue")
    with bucket.asking("glue:GetDatabase"):
        there = bucket._unless(UNSET, lambda: glue.get_database(Name=database))
    make = bucket._doing(
        "glue:CreateDatabase", lambda: glue.create_database(DatabaseInput={"Name": database})
    )
    yield Thing(f"Athena's database {database}", {}, None if there is None else {}, make)
    wanted = sql.athena_in_glue(sql.ATHENA_TABLE, _location(settings))
    with bucket.asking("glue:GetTable"):
        found = there and bucket._unless(
            UNSET, lambda: glue.get_table(DatabaseName=database, Name=wanted["Name"])
        )
    given = {"DatabaseName": database, "TableInput": wanted}
    yield Thing(
        f"Athena's table {database}.{sql.ATHENA_TABLE}, with projected partitions",
        wanted,
        found and found["Table"],
        bucket._doing("glue:CreateTable", lambda: glue.create_table(**given)),
        bucket._doing("glue:UpdateTable", lambda: glue.update_table(**given)),
    )
