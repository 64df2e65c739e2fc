-- Scope usage. Which powers are handed out, to how many agents.
-- What to do: Nothing: a report. Scopes that nobody uses can go.
SELECT scope, COUNT(*) AS grants, COUNT(DISTINCT agent_id) AS agents
FROM `PROJECT.DATASET.events_joined` CROSS JOIN UNNEST(scopes) AS scope
WHERE event_type = 'grant.created' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 7 DAY)
GROUP BY scope
ORDER BY grants DESC, scope
