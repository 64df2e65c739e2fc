-- Budget nearing its end. A warning while there is still time. The service sends it on every debit past 50 and 80 %: only the first of each grant and mark says something new.
-- What to do: Compare with the time that the grant still has; raise the budget, or ask the agent's owner.
SELECT
  grant_id,
  percent,
  MIN(agent_id) AS agent_id,
  MIN(principal_id) AS principal_id,
  MIN(created_at) AS first_at
FROM `PROJECT.DATASET.events_joined`
WHERE event_type = 'budget.threshold' AND percent >= 50 AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 30 DAY)
GROUP BY grant_id, percent
HAVING MIN(created_at) >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
ORDER BY first_at
