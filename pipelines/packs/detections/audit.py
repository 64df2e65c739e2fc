"""Anomalies that the service names itself, credentials, and the reports that auditors ask for."""

from __future__ import annotations

from pipelines.packs.detection import Detection, Monitor, Search, Threshold

ANOMALIES = Detection(
    name="anomalies",
    title="Anomaly",
    why="The service itself found something: an anomaly, or grants that it revoked because of several.",
    todo="Open it in the service; the event has ids and counts, not what was found.",
    severity="critical",
    sql="""
SELECT created_at, event_type, event_id, grants_revoked, anomalies
FROM @{table:joined}
WHERE event_type IN ('anomaly.detected', 'anomaly.auto_revoked') AND @{since:24,HOUR}
ORDER BY created_at
""",
    splunk=Search(
        """`grantex_index` type IN ("anomaly.detected", "anomaly.auto_revoked")
| `grantex_once`
| rename type AS event_type, data.revokedGrants AS grants_revoked, data.anomalyCount AS anomalies
| table _time event_type event_id grants_revoked anomalies
| sort 0 _time""",
        once_per=("event_id",),
    ),
    datadog=Monitor("type:(anomaly.detected OR anomaly.auto_revoked)"),
)

VAULT_BURST = Detection(
    name="vault_exchange_burst",
    title="Burst of vault credential exchanges",
    why="Somebody takes a principal's stored credentials out one after another.",
    todo="See which services (top of the event's data); revoke the grant, change those credentials there.",
    severity="critical",
    thresholds={
        "minutes": Threshold(5, "minutes that are counted together"),
        "many": Threshold(20, "more exchanges for one principal than this"),
    },
    sql="""
WITH counted AS (
  SELECT
    principal_id,
    created_at,
    COUNT(*) OVER (
      PARTITION BY principal_id
      ORDER BY @{millis:created_at} RANGE BETWEEN @{span:@{minutes}} PRECEDING AND CURRENT ROW
    ) AS exchanges
  FROM @{table:joined}
  WHERE event_type = 'vault.credential.exchanged' AND @{since:24,HOUR}
)
SELECT principal_id, @{hour:created_at} AS hour, MAX(exchanges) AS exchanges
FROM counted
WHERE exchanges > @{many}
GROUP BY 1, 2
ORDER BY 2, 1
""",
    splunk=Search(
        """`grantex_index` type="vault.credential.exchanged"
| `grantex_once`
| rename data.principalId AS principal_id
| sort 0 _time
| streamstats time_window=@{minutes}m count AS exchanges by principal_id
| where exchanges > @{many}
| bin span=1h _time AS hour
| stats max(exchanges) AS exchanges by principal_id hour""",
        minutes=10,
        once_per=("principal_id",),
        quiet="10m",
    ),
    datadog=Monitor(
        "type:vault.credential.exchanged",
        by=("@grantex.principal_id",),
        window="@{minutes}m",
        critical="@{many}",
    ),
)

PRINCIPAL_AUDIT = Detection(
    name="principal_audit",
    title="Audit trail of a principal",
    why="Everything that happened in one person's name, also what names only a grant of theirs.",
    todo="Nothing: a report, for auditors and for requests of access.",
    severity="info",
    alerts=False,
    thresholds={
        "principal": Threshold("user-123", "the principal's id"),
        "days": Threshold(90, "days back"),
    },
    sql="""
SELECT created_at, event_type, event_id, grant_id, agent_id
FROM @{table:joined}
WHERE principal_id = '@{principal}' AND @{since:@{days},DAY}
ORDER BY created_at, event_id
""",
    splunk=Search(
        """`grantex_index`
| `grantex_once`
| rename data.grantId AS grant_id, data.agentId AS agent_id, data.principalId AS principal_id
| rename type AS event_type
| `grantex_owner`
| search principal_id="@{principal}"
| table _time event_type event_id grant_id agent_id
| sort 0 _time""",
        earliest="-90d",
    ),
    on_dashboard=True,
)

SCOPE_USAGE = Detection(
    name="scope_usage",
    title="Scope usage",
    why="Which powers are handed out, to how many agents.",
    todo="Nothing: a report. Scopes that nobody uses can go.",
    severity="info",
    alerts=False,
    sql="""
SELECT scope, COUNT(*) AS grants, COUNT(DISTINCT agent_id) AS agents
FROM @{table:joined} @{each:scopes,scope}
WHERE event_type = 'grant.created' AND @{since:7,DAY}
GROUP BY scope
ORDER BY grants DESC, scope
""",
    splunk=Search(
        """`grantex_index` type="grant.created"
| `grantex_once`
| rename "data.scopes{}" AS scope, data.agentId AS agent_id
| fields scope agent_id
| mvexpand scope
| stats count AS grants dc(agent_id) AS agents by scope
| sort 0 -grants scope""",
        earliest="-7d",
    ),
    on_dashboard=True,
)

VOLUME_BY_TYPE = Detection(
    name="volume_by_type",
    title="Volume by type",
    why="What normal looks like. Silence is no loss: a quiet tenant sends nothing.",
    todo="Nothing: a report. Whether the feed is heard is feed_down's to say.",
    severity="info",
    alerts=False,
    sql="""
SELECT @{hour:created_at} AS hour, event_type, COUNT(*) AS events
FROM @{table:once}
WHERE @{since:24,HOUR}
GROUP BY 1, 2
ORDER BY 1, 2
""",
    splunk=Search(
        """`grantex_index`
| `grantex_once`
| rename type AS event_type
| bin span=1h _time AS hour
| stats count AS events by hour event_type""",
    ),
    on_dashboard=True,
)

COMPLETENESS = Detection(
    name="completeness_by_day",
    title="Completeness by day",
    why="Events, repeats and hours with events of each day, to compare with the exporter's own books.",
    todo="Counts prove nothing by themselves, and the service's audit log has other ids: only the delivery "
    "ledger proves completeness (the exporter's reconcile).",
    severity="info",
    alerts=False,
    sql="""
SELECT
  CAST(created_at AS DATE) AS day,
  COUNT(DISTINCT event_id) AS events,
  COUNT(*) - COUNT(DISTINCT event_id) AS repeats,
  COUNT(DISTINCT @{hour:created_at}) AS hours
FROM @{table:stored}
WHERE @{since:35,DAY}
GROUP BY 1
ORDER BY 1
""",
    splunk=Search(
        """`grantex_index`
| eval event_id=coalesce(event_id, id)
| eval hour=strftime(_time, "%H")
| bin span=1d _time AS day
| stats dc(event_id) AS events count AS rows dc(hour) AS hours by day
| eval repeats=rows-events
| table day events repeats hours""",
        earliest="-35d",
    ),
    without={
        "datadog": "Datadog drops logs older than 18 h and keeps others for days only: it has no books."
    },
)

DETECTIONS = (
    ANOMALIES,
    VAULT_BURST,
    PRINCIPAL_AUDIT,
    SCOPE_USAGE,
    VOLUME_BY_TYPE,
    COMPLETENESS,
)
