"""`provision pubsub`: the topic, and the subscription that a job on Dataflow reads it by."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipelines.flags.provision import OfPubSub, program
from pipelines.flags.settings import Settings
from pipelines.provision.google_api import WHO, GoogleApi
from pipelines.provision.plan import Plan, Thing, plan_of, required

ABOUT = """
Makes the topic of Pub/Sub for the job, and with --subscription what a job on Dataflow reads it by. Google's
application default credentials are used. What is there already is left alone; what somebody made otherwise is
shown. Exit code 0: it is as shown, or was; 1: it is not; 2: wrong parameters.
"""
PROGRAM = program("pubsub", ABOUT, "pubsub_topic pubsub_endpoint", asks=OfPubSub)
ROOT = "https://pubsub.googleapis.com"
ROLES = "the role Pub/Sub Editor (roles/pubsub.editor)"
# The most that a subscription keeps: a job may be away for a week. Google's own default lets it expire after
# 31 days in which nobody read, and what is published then is gone.
SUBSCRIPTION = {
    "ackDeadlineSeconds": 60,
    "messageRetentionDuration": "604800s",
    "expirationPolicy": {},
}


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    topic, root = required(settings, "pubsub_topic", "pubsub"), settings["pubsub_endpoint"] or ROOT
    api = GoogleApi(f"{root}/v1", ROLES, settings.way_out)
    put = partial(api.ask, "PUT", f"/{topic}", {})
    things = [Thing(f"the topic {topic}", {}, api.get(f"/{topic}"), put)]
    if settings["subscription"]:
        things.append(_subscription(api, settings["subscription"], topic))
    return plan_of(f"Pub/Sub at {root}", things, [_right(topic)], settings["overwrite"])


def files(settings: Settings) -> Mapping[str, str]:
    """gcloud's own commands."""
    topic = required(settings, "pubsub_topic", "pubsub")
    lines = [f"gcloud pubsub topics create {topic}"]
    if name := settings["subscription"]:
        lines.append(
            f"gcloud pubsub subscriptions create {name} --topic={topic} --ack-deadline=60 "
            "--message-retention-duration=7d --expiration-period=never"
        )
    return {"pubsub.sh": "\n".join([*lines, f"# {_right(topic)}", ""])}


def _right(topic: str) -> str:
    return (
        f"the job's own right, and no more: gcloud pubsub topics add-iam-policy-binding {topic} "
        f"--member={WHO} --role=roles/pubsub.publisher"
    )


def _subscription(api: GoogleApi, name: str, topic: str) -> Thing:
    found: dict[str, Any] | None = api.get(f"/{name}")
    if found is not None:
        # It is there when it is to expire; without one, or without a time in it, it never does.
        found = {**found, "expirationPolicy": found.get("expirationPolicy") or {}}
        if found["expirationPolicy"].get("ttl"):
            found["expirationPolicy"] = f"after {found['expirationPolicy']['ttl']}"
    change = {"subscription": SUBSCRIPTION, "updateMask": ",".join(SUBSCRIPTION)}
    return Thing(
        f"the subscription {name}, which never expires",
        {"topic": topic, **SUBSCRIPTION},
        found,
        partial(api.ask, "PUT", f"/{name}", {"topic": topic, **SUBSCRIPTION}),
        # What a subscription is of cannot be changed.
        partial(api.ask, "PATCH", f"/{name}", change) if found and found.get("topic") == topic else None,
        "it belongs to another topic: give another --subscription"
        if found and found.get("topic") != topic
        else "",
    )
