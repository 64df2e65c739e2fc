-- Each event once, whatever was delivered twice: for --bigquery_method=insert_all, and for moves between
-- machines. Storage Write on one machine leaves nothing to remove.
-- Replace PROJECT.DATASET.events with your table.
CREATE OR REPLACE VIEW `PROJECT.DATASET.events_once` AS
SELECT *
FROM `PROJECT.DATASET.events`
-- Repeats are the same event, so any of them will do; event_id is the idempotency key everywhere.
QUALIFY ROW_NUMBER() OVER (PARTITION BY event_id ORDER BY created_at) = 1;
