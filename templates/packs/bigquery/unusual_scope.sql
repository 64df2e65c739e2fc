-- Unusual scope of an agent. A scope that this agent never had in 30 days: a new release of it, or an agent that reaches further than it was meant to.
-- What to do: Ask the agent's owner. If nobody knows of it, revoke the grant.
WITH seen AS (
  SELECT agent_id, scope, MIN(created_at) AS first_at
  FROM `PROJECT.DATASET.events_joined` CROSS JOIN UNNEST(scopes) AS scope
  WHERE event_type IN ('grant.created', 'token.issued') AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 30 DAY)
  GROUP BY agent_id, scope
),
known AS (
  SELECT *, MIN(first_at) OVER (PARTITION BY agent_id) AS agent_since
  FROM seen
)
SELECT agent_id, scope, first_at
FROM known
WHERE first_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR) AND agent_since < TIMESTAMP_SUB(first_at, INTERVAL 24 HOUR)
ORDER BY first_at, agent_id, scope
