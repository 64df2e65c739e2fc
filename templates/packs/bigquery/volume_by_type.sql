-- Volume by type. What normal looks like. Silence is no loss: a quiet tenant sends nothing.
-- What to do: Nothing: a report. Whether the feed is heard is feed_down's to say.
SELECT TIMESTAMP_TRUNC(created_at, HOUR) AS hour, event_type, COUNT(*) AS events
FROM `PROJECT.DATASET.events_once`
WHERE created_at >= TIMESTAMP_SUB(CURRENT_TIMESTAMP(), INTERVAL 24 HOUR)
GROUP BY 1, 2
ORDER BY 1, 2
