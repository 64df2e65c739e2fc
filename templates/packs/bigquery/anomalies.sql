-- Anomaly. The service itself found something: an anomaly, or grants that it revoked because of several.
-- What to do: Open it in the service; the event has ids and counts, not what was found.
SELECT created_at, event_type, event_id, grants_revoked, anomalies
FROM `PROJECT.DATASET.events_joined`
WHERE event_type IN ('anomaly.detected', 'anomaly.auto_revoked') AND created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
ORDER BY created_at
