-- Burst of vault credential exchanges. Somebody takes a principal's stored credentials out one after another.
-- What to do: See which services (top of the event's data); revoke the grant, change those credentials there.
WITH counted AS (
  SELECT
    principal_id,
    created_at,
    COUNT(*) OVER (
      PARTITION BY principal_id
      ORDER BY CAST(to_unixtime(created_at) * 1000 AS bigint) RANGE BETWEEN 300000 PRECEDING AND CURRENT ROW
    ) AS exchanges
  FROM grantex_events_joined
  WHERE event_type = 'vault.credential.exchanged' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
)
SELECT principal_id, date_trunc('hour', created_at) AS hour, MAX(exchanges) AS exchanges
FROM counted
WHERE exchanges > 20
GROUP BY 1, 2
ORDER BY 2, 1
