-- Grant suspended or resumed. A suspended grant stops its agent without revoking it; one that is resumed has its powers back. Newer services only.
-- What to do: Read the cause in the event's data, and whether whoever resumed it was to.
SELECT created_at, event_type, grant_id, agent_id, principal_id, cause
FROM `PROJECT.DATASET.events_joined`
WHERE event_type IN ('grant.suspended', 'grant.resumed') AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
ORDER BY created_at
