-- Agents with most tokens. Who uses the service, and who began to.
-- What to do: Nothing: a report.
SELECT agent_id, COUNT(*) AS tokens, COUNT(DISTINCT principal_id) AS principals
FROM `PROJECT.DATASET.events_joined`
WHERE event_type = 'token.issued' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
GROUP BY agent_id
ORDER BY tokens DESC, agent_id
LIMIT 20
