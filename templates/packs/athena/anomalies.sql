-- Anomaly. The service itself found something: an anomaly, or grants that it revoked because of several.
-- What to do: Open it in the service; the event has ids and counts, not what was found.
SELECT created_at, event_type, event_id, grants_revoked, anomalies
FROM grantex_events_joined
WHERE event_type IN ('anomaly.detected', 'anomaly.auto_revoked') AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
ORDER BY created_at
