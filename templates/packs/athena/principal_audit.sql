-- Audit trail of a principal. Everything that happened in one person's name, also what names only a grant of theirs.
-- What to do: Nothing: a report, for auditors and for requests of access.
SELECT created_at, event_type, event_id, grant_id, agent_id
FROM grantex_events_joined
WHERE principal_id = 'user-123' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '90' DAY, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '90' DAY
ORDER BY created_at, event_id
