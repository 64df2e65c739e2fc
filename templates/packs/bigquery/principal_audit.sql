-- Audit trail of a principal. Everything that happened in one person's name, also what names only a grant of theirs.
-- What to do: Nothing: a report, for auditors and for requests of access.
SELECT created_at, event_type, event_id, grant_id, agent_id
FROM `PROJECT.DATASET.events_joined`
WHERE principal_id = 'user-123' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 90 DAY)
ORDER BY created_at, event_id
