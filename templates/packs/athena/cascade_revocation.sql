-- Cascade revocation. One event stands for a whole tree: the grant and everything that was delegated from it. The event names neither agent nor principal.
-- What to do: agent_id and principal_id are those of the root, found by its grant.created or token.issued; empty when that is older than your data. Newer services say how many grants fell (grants_revoked).
SELECT created_at, grant_id, agent_id, principal_id, grants_revoked
FROM grantex_events_joined
WHERE event_type = 'grant.revoked' AND cascade = 'true' AND dt >= date_format(CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR, '%Y-%m-%d') AND created_at >= CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp) - INTERVAL '24' HOUR
ORDER BY created_at
