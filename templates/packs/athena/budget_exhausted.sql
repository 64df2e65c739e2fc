-- Budget exhausted. The agent cannot spend any more: what it does for its principal stops here.
-- What to do: Decide whether to raise the budget or to let it end; look at how fast it went (budget_nearing).
SELECT grant_id, agent_id, principal_id, MIN(created_at) AS first_at
FROM grantex_events_joined
WHERE event_type = 'budget.exhausted' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
GROUP BY grant_id, agent_id, principal_id
ORDER BY first_at
