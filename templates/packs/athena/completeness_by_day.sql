-- Completeness by day. Events, repeats and hours with events of each day, to compare with the exporter's own books.
-- What to do: Counts prove nothing by themselves, and the service's audit log has other ids: only the delivery ledger proves completeness (the exporter's reconcile).
SELECT
  CAST(created_at AS DATE) AS day,
  COUNT(DISTINCT event_id) AS events,
  COUNT(*) - COUNT(DISTINCT event_id) AS repeats,
  COUNT(DISTINCT date_trunc('hour', created_at)) AS hours
FROM grantex_events_stored
WHERE dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '35' DAY, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '35' DAY
GROUP BY 1
ORDER BY 1
