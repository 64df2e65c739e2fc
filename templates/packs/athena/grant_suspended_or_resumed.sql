-- Grant suspended or resumed. A suspended grant stops its agent without revoking it; one that is resumed has its powers back. Newer services only.
-- What to do: Read the cause in the event's data, and whether whoever resumed it was to.
SELECT created_at, event_type, grant_id, agent_id, principal_id, cause
FROM grantex_events_joined
WHERE event_type IN ('grant.suspended', 'grant.resumed') AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
ORDER BY created_at
