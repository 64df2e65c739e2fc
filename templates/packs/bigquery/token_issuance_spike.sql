-- Token issuance spike of an agent. An agent that suddenly wants many tokens is stuck in a loop, or somebody else has its credentials.
-- What to do: Look at its grants and scopes (principal_audit, scope_usage); suspend or revoke the grant if nobody can explain it.
WITH parts AS (
  SELECT agent_id, TIMESTAMP_SECONDS(DIV(UNIX_SECONDS(created_at), 300) * 300) AS started_at, COUNT(*) AS tokens
  FROM `PROJECT.DATASET.events_joined`
  WHERE event_type = 'token.issued' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
  GROUP BY 1, 2
),
compared AS (
  SELECT
    agent_id,
    started_at,
    tokens,
    SUM(tokens) OVER (PARTITION BY agent_id) - tokens AS others,
    COUNT(*) OVER (PARTITION BY agent_id) - 1 AS parts
  FROM parts
)
SELECT agent_id, started_at, tokens, others, parts
FROM compared
WHERE tokens > 50 AND (parts = 0 OR tokens * parts > 5 * others)
ORDER BY started_at, agent_id
