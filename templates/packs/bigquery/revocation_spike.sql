-- Revocation spike. Many grants revoked within minutes are an incident being answered, a script gone wrong, or somebody taking agents out of service.
-- What to do: See who revoked (the service's audit log) and which agents are left without a grant; the rows name their grants. Expected clean-ups: raise the threshold for their time.
WITH counted AS (
  SELECT
    created_at,
    COUNT(*) OVER (
      ORDER BY UNIX_MILLIS(created_at) RANGE BETWEEN 300000 PRECEDING AND CURRENT ROW
    ) AS revocations
  FROM `PROJECT.DATASET.events_joined`
  WHERE event_type = 'grant.revoked' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
)
SELECT TIMESTAMP_TRUNC(created_at, HOUR) AS hour, MIN(created_at) AS first_at, MAX(revocations) AS revocations
FROM counted
WHERE revocations > 10
GROUP BY 1
ORDER BY 1
