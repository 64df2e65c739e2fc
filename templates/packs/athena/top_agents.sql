-- Agents with most tokens. Who uses the service, and who began to.
-- What to do: Nothing: a report.
SELECT agent_id, COUNT(*) AS tokens, COUNT(DISTINCT principal_id) AS principals
FROM grantex_events_joined
WHERE event_type = 'token.issued' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
GROUP BY agent_id
ORDER BY tokens DESC, agent_id
LIMIT 20
