"""Parameters of the feed and of the windows over it."""

from __future__ import annotations

from dataclasses import dataclass

from pipelines.parameters import Group, choice, names, seconds, secret, text, url, whole
from transforms.pubsub_names import subscription
from transforms.secret import Secret

GROUP = Group("Feed")


@dataclass(frozen=True, kw_only=True)
class FeedParameters:
    feed_url: str = url(GROUP, "https://api.grantex.dev", "Root of the Grantex service.", ours="/v1/events")
    feed_api_key: Secret | None = secret(GROUP, "Grantex API key.", required=True, example="env:FEED_KEY")
    feed_types: tuple[str, ...] = names(
        GROUP, "Event types to receive.", default_text="all", example="grant.created,grant.revoked"
    )
    feed_transport: str = choice(
        GROUP, "sse", "How events are received.", ("sse",), later="websocket comes later"
    )
    # The service allows five a developer.
    feed_connections: int = whole(GROUP, 1, "At most so many redundant connections.", at_least=1, at_most=5)
    pubsub_subscription: str = text(
        GROUP,
        "",
        "On Dataflow, instead of the feed: what a job on one machine publishes with --pubsub_topic.",
        read=subscription,
        placeholder="projects/PROJECT/subscriptions/NAME",
        pattern=r"projects/[^/\s]+/subscriptions/[^/\s]+",
        param_type="PUBSUB_SUBSCRIPTION",
        in_demo=False,
        example="projects/my-project/subscriptions/grantex-events",
    )
    window_size: float = seconds(GROUP, 300, "Length of the fixed windows over arrival time.")
