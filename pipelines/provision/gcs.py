"""`provision gcs`: bucket, encryption, lifecycle, and a retention policy that may be locked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from pipelines.flags.provision import OfGCS, program
from pipelines.flags.settings import Settings
from pipelines.packs import retention
from pipelines.provision import buckets, terraform
from pipelines.provision.google_api import WHO, GoogleApi, part
from pipelines.provision.plan import CannotProvision, Plan, Thing, plan_of

ABOUT = """
Sets up a bucket of Cloud Storage for the archive: closed to the public, with the lifecycle of --retention,
and a retention policy when --object_lock says so. Google's application default credentials are used. What is
there already is left alone; what somebody made otherwise is shown. Exit code 0: it is as shown, or was; 1: it
is not; 2: wrong parameters.
"""
PROGRAM = program("gcs", ABOUT, "gcs_bucket gcs_prefix gcs_endpoint gcs_kms_key", asks=OfGCS)
ROOT = "https://storage.googleapis.com"
ROLES = "the role Storage Admin (roles/storage.admin)"
CLOSED = {"uniformBucketLevelAccess": {"enabled": True}, "publicAccessPrevention": "enforced"}
DAY = 86_400


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    name, root = buckets.needed(settings, "gcs"), settings["gcs_endpoint"] or ROOT
    api = GoogleApi(f"{root}/storage/v1", ROLES, settings.way_out)
    found = api.get(f"/b/{part(name)}")
    things = [_bucket(settings, api, name, found), *_settings(settings, api, name, found)]
    return plan_of(f"bucket {name} at {root}", things, _by_hand(settings, name), settings["overwrite"])


def files(settings: Settings) -> Mapping[str, str]:
    """Terraform with the lifecycle that it reads."""
    name, kept = buckets.needed(settings, "gcs"), buckets.years(settings)
    prefix = buckets.prefix(settings, "gcs")
    rules = retention.gcs_lifecycle(kept, prefix) if kept else {"lifecycle": {"rule": []}}
    seconds = retention.days(kept.least) * DAY if kept else 0
    where = (settings["gcs_project"] or "PROJECT", settings["gcs_location"] or "EU")
    return {
        "lifecycle.json": json.dumps(rules, indent=2) + "\n",
        "main.tf": terraform.gcs(name, *where, settings["gcs_kms_key"], seconds, settings["object_lock"]),
    }


def _by_hand(settings: Settings, name: str) -> list[str]:
    right = (
        f"the job's own right, and no more: gcloud storage buckets add-iam-policy-binding gs://{name} "
        f"--member={WHO} --role=roles/storage.objectCreator"
    )
    return [right, *buckets.left_out(settings)]


def _bucket(settings: Settings, api: GoogleApi, name: str, found: Any) -> Thing:
    project, location = settings["gcs_project"], settings["gcs_location"]
    if found is None and not (project and location):
        missing = "--gcs_location" if project else "--gcs_project"
        raise CannotProvision(
            f"{missing}: is missing, and the bucket {name} is to be made: give --gcs_project, and where its "
            "data is to live, for example --gcs_location=EU, which cannot be changed later",
            bad=True,
        )
    wanted = {"location": location.upper()} if location else {}
    make = partial(api.ask, "POST", f"/b?project={part(project)}", {"name": name, **wanted})
    return Thing(f"the bucket {name}", wanted, found, make, by_hand="a bucket stays where it was made")


def _settings(settings: Settings, api: GoogleApi, name: str, found: Any) -> list[Thing]:
    """Each setting of the bucket that is ours to say, as a thing."""

    def thing(what: str, key: str, wanted: Any, is_unset: bool = False) -> Thing:
        patch = partial(api.ask, "PATCH", f"/b/{part(name)}", {key: wanted})
        there = (found or {}).get(key)
        return Thing(what, {key: wanted}, None if not there or is_unset else {key: there}, patch, patch)

    access = (found or {}).get("iamConfiguration", {})
    is_open = not access.get("uniformBucketLevelAccess", {}).get("enabled")
    things = [thing("closed to the public", "iamConfiguration", CLOSED, is_unset=is_open)]
    if key := settings["gcs_kms_key"]:
        things.append(thing("encrypted by the KMS key", "encryption", {"defaultKmsKeyName": key}))
    if kept := buckets.years(settings):
        rules = retention.gcs_lifecycle(kept, buckets.prefix(settings, "gcs"))["lifecycle"]
        things.append(
            thing(f"the lifecycle of {kept.title}: {buckets.counted(kept.advised)}", "lifecycle", rules)
        )
        if settings["object_lock"] != "off":
            policy = {"retentionPeriod": str(retention.days(kept.least) * DAY)}
            what = f"objects cannot be deleted for {buckets.counted(kept.least)}"
            things.append(thing(what, "retentionPolicy", policy))
            if settings["object_lock"] == "compliance":
                things.append(_locked(settings, api, name, found, what))
    return things


def _locked(settings: Settings, api: GoogleApi, name: str, found: Any, what: str) -> Thing:
    """The retention policy locked, which nobody can take back."""

    def lock() -> None:
        there = api.ask("GET", f"/b/{part(name)}")
        condition = f"ifMetagenerationMatch={there['metageneration']}"
        api.ask("POST", f"/b/{part(name)}/lockRetentionPolicy?{condition}")

    is_locked = (found or {}).get("retentionPolicy", {}).get("isLocked")
    return Thing(
        f"{what}: locked for ever",
        {},
        {} if is_locked else None,
        lock,
        for_ever=buckets.for_ever(settings, name),
    )
