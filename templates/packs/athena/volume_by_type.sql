-- Volume by type. What normal looks like. Silence is no loss: a quiet tenant sends nothing.
-- What to do: Nothing: a report. Whether the feed is heard is feed_down's to say.
SELECT date_trunc('hour', created_at) AS hour, event_type, COUNT(*) AS events
FROM grantex_events_once
WHERE dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
GROUP BY 1, 2
ORDER BY 1, 2
