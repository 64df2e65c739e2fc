-- Deep delegation. Each delegation hands powers on to an agent that the principal never saw; deep chains are how scopes leak.
-- What to do: Follow parentGrantId upwards; revoke the first grant that should not have been delegated, with cascade.
SELECT created_at, grant_id, agent_id, principal_id, delegation_depth
FROM grantex_events_joined
WHERE event_type = 'grant.created' AND delegation_depth >= 3 AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
ORDER BY created_at
