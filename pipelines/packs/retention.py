"""How long the archive is kept, for each framework: rules for S3 and GCS, expiration for BigQuery.

The years are those that the service's guide gives; what your auditor says goes before them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Framework:
    """least, advised: years; least 0 is "as long as it is needed"."""

    name: str
    title: str
    least: int
    advised: int
    erasable: bool = False
    note: str = ""


FRAMEWORKS = (
    Framework("soc2", "SOC 2", 1, 3),
    Framework("hipaa", "HIPAA", 6, 7),
    Framework(
        "gdpr",
        "GDPR",
        0,
        3,
        erasable=True,
        note="No Object Lock: what may have to be erased must not be locked. Keep pseudonyms where you can.",
    ),
    Framework("pci_dss", "PCI DSS", 1, 3, note="Three months must be at hand: they are, before GLACIER."),
    Framework("fedramp", "FedRAMP", 3, 5),
)
# Days until the cheaper classes, as the service's guide has them; 30 is S3's least for STANDARD_IA.
S3_CLASSES = ((30, "STANDARD_IA"), (90, "GLACIER"), (365, "DEEP_ARCHIVE"))
GCS_CLASSES = ((30, "NEARLINE"), (90, "COLDLINE"), (365, "ARCHIVE"))
PREFIX = "grantex-events/"
RULES = "grantex-"  # what the ids of our rules begin with


def framework(name: str) -> Framework:
    """The one of this name. Raises KeyError."""
    return {each.name: each for each in FRAMEWORKS}[name]


def days(years: int) -> int:
    """At least so many years, leap days included: a bare 365 a year ends two days before seven years do."""
    return math.ceil(years * 365.25)


def s3_lifecycle(framework: Framework, prefix: str = PREFIX) -> dict[str, Any]:
    """For `aws s3api put-bucket-lifecycle-configuration --lifecycle-configuration file://…`.

    In a bucket with versions (Object Lock needs them) an expired object only gets a marker: what it hides
    must expire as well, and the marker then.
    """
    keep = days(framework.advised)
    return {
        "Rules": [
            {
                "ID": f"{RULES}{framework.name}",
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "Transitions": [{"Days": after, "StorageClass": name} for after, name in S3_CLASSES],
                "Expiration": {"Days": keep},
                "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
            },
            {
                "ID": f"{RULES}{framework.name}-markers",
                "Status": "Enabled",
                "Filter": {"Prefix": prefix},
                "Expiration": {"ExpiredObjectDeleteMarker": True},
            },
        ]
    }


def s3_object_lock(framework: Framework, mode: str = "COMPLIANCE") -> dict[str, Any]:
    """For `aws s3api put-object-lock-configuration`. COMPLIANCE cannot be taken back by anybody, for as
    long as it lasts: try GOVERNANCE first."""
    retention = {"Mode": mode, "Years": framework.least}
    return {"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}}


def gcs_lifecycle(framework: Framework, prefix: str = PREFIX) -> dict[str, Any]:
    """For `gcloud storage buckets update --lifecycle-file=…`."""
    rules: list[dict[str, Any]] = [
        {
            "action": {"type": "SetStorageClass", "storageClass": name},
            "condition": {"age": after, "matchesPrefix": [prefix]},
        }
        for after, name in GCS_CLASSES
    ]
    keep = {"age": days(framework.advised), "matchesPrefix": [prefix]}
    return {"lifecycle": {"rule": [*rules, {"action": {"type": "Delete"}, "condition": keep}]}}


def bigquery(framework: Framework, table: str = "PROJECT.DATASET.events") -> str:
    """Expiration, and where people may have to be erased, how."""
    text = expiration(framework, table)
    return text + ERASE.format(table=table) if framework.erasable else text


def expiration(framework: Framework, table: str) -> str:
    """Days go by the partition's own day: created_at with --bigquery_schema=typed, else arrival."""
    return (
        f"-- {framework.title}: {framework.advised} years.\n"
        f"ALTER TABLE `{table}` SET OPTIONS (partition_expiration_days = {days(framework.advised)});\n"
    )


# Rows of the last 90 minutes may still be in BigQuery's streaming buffer, where DELETE does not reach.
ERASE = """
-- Erase one person: everything that names them, and everything that names a grant of theirs. Run it again
-- after two hours: rows that came just before may still be in the streaming buffer, which DELETE cannot
-- change.
CREATE OR REPLACE PROCEDURE `{table}_erase`(person STRING)
BEGIN
  DELETE FROM `{table}`
  WHERE JSON_VALUE(data, '$.principalId') = person
    OR JSON_VALUE(data, '$.email') = person
    OR JSON_VALUE(data, '$.grantId') IN (
      SELECT JSON_VALUE(data, '$.grantId') FROM `{table}` WHERE JSON_VALUE(data, '$.principalId') = person
    );
END;
"""


def files() -> Mapping[str, str]:
    """Path below templates/packs, and text."""
    found = {}
    for one in FRAMEWORKS:
        bodies = {"s3_lifecycle": s3_lifecycle(one), "gcs_lifecycle": gcs_lifecycle(one)}
        if one.least and not one.erasable:
            bodies["s3_object_lock"] = s3_object_lock(one)
        for name, body in bodies.items():
            found[f"retention/{one.name}/{name}.json"] = json.dumps(body, indent=2) + "\n"
        found[f"retention/{one.name}/bigquery.sql"] = bigquery(one)
    return found
