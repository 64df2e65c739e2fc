"""Detections about grants: revoked, suspended, delegated."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Monitor, Search, Threshold

REVOCATION_SPIKE = Detection(
    name="revocation_spike",
    title="Revocation spike",
    why="Many grants revoked within minutes are an incident being answered, a script gone wrong, or somebody "
    "taking agents out of service.",
    todo="See who revoked (the service's audit log) and which agents are left without a grant; the rows name "
    "their grants. Expected clean-ups: raise the threshold for their time.",
    severity="critical",
    thresholds={
        "minutes": Threshold(5, "minutes that are counted together"),
        "many": Threshold(10, "more revocations than this are a spike"),
        "very_many": Threshold(50, "more than this are critical (Datadog)"),
    },
    sql="""
WITH counted AS (
  SELECT
    created_at,
    COUNT(*) OVER (
      ORDER BY @{millis:created_at} RANGE BETWEEN @{span:@{minutes}} PRECEDING AND CURRENT ROW
    ) AS revocations
  FROM @{table:joined}
  WHERE event_type = 'grant.revoked' AND @{since:24,HOUR}
)
SELECT @{hour:created_at} AS hour, MIN(created_at) AS first_at, MAX(revocations) AS revocations
FROM counted
WHERE revocations > @{many}
GROUP BY 1
ORDER BY 1
""",
    # An alert looks at ten minutes, so that every five of them lie in one of its looks as a whole.
    splunk=Search(
        """`grantex_index` type="grant.revoked"
| `grantex_once`
| sort 0 _time
| streamstats time_window=@{minutes}m count AS revocations
| where revocations > @{many}
| bin span=1h _time AS hour
| stats min(_time) AS first_at max(revocations) AS revocations by hour""",
        minutes=10,
        once_per=("hour",),
        quiet="10m",
    ),
    datadog=Monitor("type:grant.revoked", window="@{minutes}m", critical="@{very_many}", warning="@{many}"),
)

CASCADE_REVOCATION = Detection(
    name="cascade_revocation",
    title="Cascade revocation",
    why="One event stands for a whole tree: the grant and everything that was delegated from it. The event "
    "names neither agent nor principal.",
    todo="agent_id and principal_id are those of the root, found by its grant.created or token.issued; empty "
    "when that is older than your data. Newer services say how many grants fell (grants_revoked).",
    sql="""
SELECT created_at, grant_id, agent_id, principal_id, grants_revoked
FROM @{table:joined}
WHERE event_type = 'grant.revoked' AND cascade = 'true' AND @{since:24,HOUR}
ORDER BY created_at
""",
    splunk=Search(
        """`grantex_index` type="grant.revoked" data.cascade=true
| `grantex_once`
| rename data.grantId AS grant_id
| `grantex_owner`
| eval grants_revoked=mvcount('data.grantIds{}')
| table _time grant_id agent_id principal_id grants_revoked event_id
| sort 0 _time""",
        once_per=("grant_id",),
    ),
    datadog=Monitor("type:grant.revoked @grantex.cascade:true", by=("@grantex.grant_id",)),
)

SUSPENDED_OR_RESUMED = Detection(
    name="grant_suspended_or_resumed",
    title="Grant suspended or resumed",
    why="A suspended grant stops its agent without revoking it; one that is resumed has its powers back. "
    "Newer services only.",
    todo="Read the cause in the event's data, and whether whoever resumed it was to.",
    severity="info",
    sql="""
SELECT created_at, event_type, grant_id, agent_id, principal_id, cause
FROM @{table:joined}
WHERE event_type IN ('grant.suspended', 'grant.resumed') AND @{since:24,HOUR}
ORDER BY created_at
""",
    splunk=Search(
        """`grantex_index` type IN ("grant.suspended", "grant.resumed")
| `grantex_once`
| rename data.grantId AS grant_id, type AS event_type, data.cause AS cause
| `grantex_owner`
| table _time event_type grant_id agent_id principal_id cause event_id
| sort 0 _time""",
        once_per=("event_id",),
    ),
    datadog=Monitor("type:(grant.suspended OR grant.resumed)", by=("@grantex.grant_id",)),
)

DEEP_DELEGATION = Detection(
    name="deep_delegation",
    title="Deep delegation",
    why="Each delegation hands powers on to an agent that the principal never saw; deep chains are how "
    "scopes leak.",
    todo="Follow parentGrantId upwards; revoke the first grant that should not have been delegated, with "
    "cascade.",
    thresholds={"depth": Threshold(3, "delegations from the principal's own grant; this many or more")},
    known_as=("delegation_depth",),
    sql="""
SELECT created_at, grant_id, agent_id, principal_id, delegation_depth
FROM @{table:joined}
WHERE event_type = 'grant.created' AND delegation_depth >= @{depth} AND @{since:24,HOUR}
ORDER BY created_at
""",
    splunk=Search(
        """`grantex_index` type="grant.created" data.delegationDepth>=@{depth}
| `grantex_once`
| rename data.grantId AS grant_id, data.agentId AS agent_id, data.principalId AS principal_id
| rename data.delegationDepth AS delegation_depth
| table _time grant_id agent_id principal_id delegation_depth event_id
| sort 0 _time""",
        once_per=("grant_id",),
    ),
    datadog=Monitor("type:grant.created @grantex.delegation_depth:>=@{depth}", by=("@grantex.grant_id",)),
)

DETECTIONS = (REVOCATION_SPIKE, CASCADE_REVOCATION, SUSPENDED_OR_RESUMED, DEEP_DELEGATION)
