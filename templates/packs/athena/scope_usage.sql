-- Scope usage. Which powers are handed out, to how many agents.
-- What to do: Nothing: a report. Scopes that nobody uses can go.
SELECT scope, COUNT(*) AS grants, COUNT(DISTINCT agent_id) AS agents
FROM grantex_events_joined CROSS JOIN UNNEST(scopes) AS each_of_them (scope)
WHERE event_type = 'grant.created' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '7' DAY, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '7' DAY
GROUP BY scope
ORDER BY grants DESC, scope
