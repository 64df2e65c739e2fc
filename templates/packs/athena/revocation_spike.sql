-- Revocation spike. Many grants revoked within minutes are an incident being answered, a script gone wrong, or somebody taking agents out of service.
-- What to do: See who revoked (the service's audit log) and which agents are left without a grant; the rows name their grants. Expected clean-ups: raise the threshold for their time.
WITH counted AS (
  SELECT
    created_at,
    COUNT(*) OVER (
      ORDER BY CAST(to_unixtime(created_at) * 1000 AS bigint) RANGE BETWEEN 300000 PRECEDING AND CURRENT ROW
    ) AS revocations
  FROM grantex_events_joined
  WHERE event_type = 'grant.revoked' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
)
SELECT date_trunc('hour', created_at) AS hour, MIN(created_at) AS first_at, MAX(revocations) AS revocations
FROM counted
WHERE revocations > 10
GROUP BY 1
ORDER BY 1
