"""Detections about agents: what they ask for, and how much."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Monitor, NewValue, Search, Threshold

TOKEN_SPIKE = Detection(
    name="token_issuance_spike",
    title="Token issuance spike of an agent",
    why="An agent that suddenly wants many tokens is stuck in a loop, or somebody else has its credentials.",
    todo="Look at its grants and scopes (principal_audit, scope_usage); suspend or revoke the grant if "
    "nobody can explain it.",
    thresholds={
        "many": Threshold(50, "tokens of one agent within five minutes, at least"),
        "times": Threshold(5, "times its own mean over the day's other five minutes in which it had any"),
    },
    known_as=("velocity_spike",),
    sql="""
WITH parts AS (
  SELECT agent_id, @{five_minutes:created_at} AS started_at, COUNT(*) AS tokens
  FROM @{table:joined}
  WHERE event_type = 'token.issued' AND @{since:24,HOUR}
  GROUP BY 1, 2
),
compared AS (
  SELECT
    agent_id,
    started_at,
    tokens,
    SUM(tokens) OVER (PARTITION BY agent_id) - tokens AS others,
    COUNT(*) OVER (PARTITION BY agent_id) - 1 AS parts
  FROM parts
)
SELECT agent_id, started_at, tokens, others, parts
FROM compared
WHERE tokens > @{many} AND (parts = 0 OR tokens * parts > @{times} * others)
ORDER BY started_at, agent_id
""",
    splunk=Search(
        """`grantex_index` type="token.issued"
| `grantex_once`
| rename data.agentId AS agent_id
| bin span=5m _time
| stats count AS tokens by agent_id _time
| eventstats sum(tokens) AS total count AS total_parts by agent_id
| eval others=total-tokens, parts=total_parts-1
| where tokens > @{many} AND (parts=0 OR tokens * parts > @{times} * others)
| table _time agent_id tokens others parts""",
        minutes=0,
        cron="4-59/15 * * * *",
        once_per=("agent_id", "_time"),
        quiet="24h",
    ),
    datadog=Monitor("type:token.issued", by=("@grantex.agent_id",), window="5m", critical="@{many}"),
)

UNUSUAL_SCOPE = Detection(
    name="unusual_scope",
    title="Unusual scope of an agent",
    why="A scope that this agent never had in 30 days: a new release of it, or an agent that reaches further "
    "than it was meant to.",
    todo="Ask the agent's owner. If nobody knows of it, revoke the grant.",
    thresholds={
        "known_hours": Threshold(24, "hours that an agent must be known; before, everything of it is new"),
        "hours": Threshold(1, "hours back that are reported"),
    },
    known_as=("scope_escalation",),
    sql="""
WITH seen AS (
  SELECT agent_id, scope, MIN(created_at) AS first_at
  FROM @{table:joined} @{each:scopes,scope}
  WHERE event_type IN ('grant.created', 'token.issued') AND @{since:30,DAY}
  GROUP BY agent_id, scope
),
known AS (
  SELECT *, MIN(first_at) OVER (PARTITION BY agent_id) AS agent_since
  FROM seen
)
SELECT agent_id, scope, first_at
FROM known
WHERE first_at >= @{ago:@{hours},HOUR} AND agent_since < @{before:first_at,@{known_hours},HOUR}
ORDER BY first_at, agent_id, scope
""",
    splunk=Search(
        """`grantex_index` type IN ("grant.created", "token.issued")
| `grantex_once`
| rename data.agentId AS agent_id, "data.scopes{}" AS scope
| fields _time agent_id scope
| mvexpand scope
| stats min(_time) AS first_at by agent_id scope
| eventstats min(first_at) AS agent_since by agent_id
| where first_at >= relative_time(now(), "-@{hours}h") AND agent_since < first_at - @{known_hours} * 3600
| table first_at agent_id scope
| sort 0 first_at""",
        earliest="-30d",
        minutes=0,
        once_per=("agent_id", "scope"),
        quiet="30d",
    ),
    datadog=NewValue("type:(grant.created OR token.issued)", "@grantex.scopes", by=("@grantex.agent_id",)),
)

UNKNOWN_AGENT = Detection(
    name="unknown_agent",
    title="Unknown agent",
    why="The first grant or token of an agent that was never seen in 30 days.",
    todo="Match it with your list of agents. On the first day, and after 30 quiet days, every agent is new.",
    thresholds={"hours": Threshold(1, "hours back that are reported")},
    known_as=("unknown_agent",),
    sql="""
SELECT agent_id, MIN(created_at) AS first_at, COUNT(DISTINCT principal_id) AS principals
FROM @{table:joined}
WHERE event_type IN ('grant.created', 'token.issued') AND agent_id IS NOT NULL AND @{since:30,DAY}
GROUP BY agent_id
HAVING MIN(created_at) >= @{ago:@{hours},HOUR}
ORDER BY first_at
""",
    splunk=Search(
        """`grantex_index` type IN ("grant.created", "token.issued")
| `grantex_once`
| rename data.agentId AS agent_id, data.principalId AS principal_id
| stats min(_time) AS first_at dc(principal_id) AS principals by agent_id
| where first_at >= relative_time(now(), "-@{hours}h")
| sort 0 first_at""",
        earliest="-30d",
        minutes=0,
        once_per=("agent_id",),
        quiet="30d",
    ),
    datadog=NewValue("type:(grant.created OR token.issued)", "@grantex.agent_id"),
)

TOP_AGENTS = Detection(
    name="top_agents",
    title="Agents with most tokens",
    why="Who uses the service, and who began to.",
    todo="Nothing: a report.",
    severity="info",
    alerts=False,
    thresholds={"most": Threshold(20, "agents that are listed")},
    sql="""
SELECT agent_id, COUNT(*) AS tokens, COUNT(DISTINCT principal_id) AS principals
FROM @{table:joined}
WHERE event_type = 'token.issued' AND @{since:24,HOUR}
GROUP BY agent_id
ORDER BY tokens DESC, agent_id
LIMIT @{most}
""",
    splunk=Search(
        """`grantex_index` type="token.issued"
| `grantex_once`
| rename data.agentId AS agent_id, data.principalId AS principal_id
| stats count AS tokens dc(principal_id) AS principals by agent_id
| sort @{most} -tokens agent_id""",
    ),
    on_dashboard=True,
)

DETECTIONS = (TOKEN_SPIKE, UNUSUAL_SCOPE, UNKNOWN_AGENT, TOP_AGENTS)
