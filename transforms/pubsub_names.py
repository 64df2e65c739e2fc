"""What a relay through Pub/Sub agrees on: its resources' names, and the attributes of its messages."""

from __future__ import annotations

import re

# Beside the event's JSON, which is the message's data. Dataflow tells repeats by the first one; filters of
# subscriptions can ask for either.
EVENT_ID = "event_id"
EVENT_TYPE = "event_type"

# "Guidelines to name a resource" of Pub/Sub; a project's id may have its organisation before a colon.
_PROJECT = "projects/[a-z][a-z0-9.:-]{4,62}"
_NAME = "[A-Za-z][A-Za-z0-9_.~+%-]{2,254}"
TOPIC = f"{_PROJECT}/topics/{_NAME}"
SUBSCRIPTION = f"{_PROJECT}/subscriptions/{_NAME}"


def topic(text: str) -> str:
    """A topic's full name. Raises ValueError."""
    if not re.fullmatch(TOPIC, text):
        raise ValueError("must be projects/PROJECT/topics/TOPIC")
    return text


def subscription(text: str) -> str:
    """A subscription's full name. Raises ValueError."""
    if not re.fullmatch(SUBSCRIPTION, text):
        raise ValueError("must be projects/PROJECT/subscriptions/SUBSCRIPTION")
    return text
