"""Detections about budgets. The service repeats budget.threshold on every debit past a mark."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Monitor, Search, Threshold

BUDGET_EXHAUSTED = Detection(
    name="budget_exhausted",
    title="Budget exhausted",
    why="The agent cannot spend any more: what it does for its principal stops here.",
    todo="Decide whether to raise the budget or to let it end; look at how fast it went (budget_nearing).",
    severity="critical",
    known_as=("budget_overspend",),
    sql="""
SELECT grant_id, agent_id, principal_id, MIN(created_at) AS first_at
FROM @{table:joined}
WHERE event_type = 'budget.exhausted' AND @{since:24,HOUR}
GROUP BY grant_id, agent_id, principal_id
ORDER BY first_at
""",
    splunk=Search(
        """`grantex_index` type="budget.exhausted"
| `grantex_once`
| rename data.grantId AS grant_id
| stats min(_time) AS first_at by grant_id
| `grantex_owner`
| sort 0 first_at""",
        once_per=("grant_id",),
        quiet="24h",
    ),
    datadog=Monitor("type:budget.exhausted", by=("@grantex.grant_id",)),
)

BUDGET_NEARING = Detection(
    name="budget_nearing",
    title="Budget nearing its end",
    why="A warning while there is still time. The service sends it on every debit past 50 and 80 %: only the "
    "first of each grant and mark says something new.",
    todo="Compare with the time that the grant still has; raise the budget, or ask the agent's owner.",
    thresholds={"percent": Threshold(50, "marks from here on; the service has 50 and 80")},
    sql="""
SELECT
  grant_id,
  percent,
  MIN(agent_id) AS agent_id,
  MIN(principal_id) AS principal_id,
  MIN(created_at) AS first_at
FROM @{table:joined}
WHERE event_type = 'budget.threshold' AND percent >= @{percent} AND @{since:30,DAY}
GROUP BY grant_id, percent
HAVING MIN(created_at) >= @{ago:24,HOUR}
ORDER BY first_at
""",
    # Splunk's own throttle makes it the first: for 30 days it does not tell of the same grant and mark again.
    splunk=Search(
        """`grantex_index` type="budget.threshold" data.pct>=@{percent}
| `grantex_once`
| rename data.grantId AS grant_id, data.pct AS percent
| stats min(_time) AS first_at by grant_id percent
| `grantex_owner`
| sort 0 first_at""",
        once_per=("grant_id", "percent"),
        quiet="30d",
    ),
    # A monitor's group that alerts already does not alert again while events keep coming within a day.
    datadog=Monitor("type:budget.threshold", by=("@grantex.grant_id", "@grantex.percent"), window="1d"),
)

DETECTIONS = (BUDGET_EXHAUSTED, BUDGET_NEARING)
