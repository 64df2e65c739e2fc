-- Burst of vault credential exchanges. Somebody takes a principal's stored credentials out one after another.
-- What to do: See which services (top of the event's data); revoke the grant, change those credentials there.
WITH counted AS (
  SELECT
    principal_id,
    created_at,
    COUNT(*) OVER (
      PARTITION BY principal_id
      ORDER BY UNIX_MILLIS(created_at) RANGE BETWEEN 300000 PRECEDING AND CURRENT ROW
    ) AS exchanges
  FROM `PROJECT.DATASET.events_joined`
  WHERE event_type = 'vault.credential.exchanged' AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
)
SELECT principal_id, TIMESTAMP_TRUNC(created_at, HOUR) AS hour, MAX(exchanges) AS exchanges
FROM counted
WHERE exchanges > 20
GROUP BY 1, 2
ORDER BY 2, 1
