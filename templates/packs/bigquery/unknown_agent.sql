-- Unknown agent. The first grant or token of an agent that was never seen in 30 days.
-- What to do: Match it with your list of agents. On the first day, and after 30 quiet days, every agent is new.
SELECT agent_id, MIN(created_at) AS first_at, COUNT(DISTINCT principal_id) AS principals
FROM `PROJECT.DATASET.events_joined`
WHERE event_type IN ('grant.created', 'token.issued') AND agent_id IS NOT NULL AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 30 DAY)
GROUP BY agent_id
HAVING MIN(created_at) >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR)
ORDER BY first_at
