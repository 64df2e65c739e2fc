-- Budget exhausted. The agent cannot spend any more: what it does for its principal stops here.
-- What to do: Decide whether to raise the budget or to let it end; look at how fast it went (budget_nearing).
SELECT grant_id, agent_id, principal_id, MIN(created_at) AS first_at
FROM `PROJECT.DATASET.events_joined`
WHERE event_type = 'budget.exhausted' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
GROUP BY grant_id, agent_id, principal_id
ORDER BY first_at
