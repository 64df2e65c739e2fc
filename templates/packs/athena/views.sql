-- Athena runs one statement at a time.

CREATE OR REPLACE VIEW grantex_events_stored AS
SELECT
  json_extract_scalar(event, '$.id') AS event_id,
  json_extract_scalar(event, '$.type') AS event_type,
  TRY(CAST(from_iso8601_timestamp(json_extract_scalar(event, '$.createdAt')) AT TIME ZONE 'UTC' AS timestamp)) AS created_at,
  json_format(json_extract(event, '$.data')) AS data,
  json_extract_scalar(event, '$.data.grantId') AS grant_id,
  json_extract_scalar(event, '$.data.agentId') AS agent_id,
  json_extract_scalar(event, '$.data.principalId') AS principal_id,
  json_extract_scalar(event, '$.data.parentGrantId') AS parent_grant_id,
  json_extract_scalar(event, '$.data.cascade') AS cascade,
  json_extract_scalar(event, '$.data.cause') AS cause,
  json_extract_scalar(event, '$.data.service') AS service,
  TRY_CAST(json_extract_scalar(event, '$.data.pct') AS bigint) AS percent,
  TRY_CAST(json_extract_scalar(event, '$.data.delegationDepth') AS bigint) AS delegation_depth,
  TRY_CAST(json_extract_scalar(event, '$.data.anomalyCount') AS bigint) AS anomalies,
  COALESCE(CAST(json_array_length(json_extract(event, '$.data.grantIds')) AS bigint), TRY_CAST(json_extract_scalar(event, '$.data.revokedGrants') AS bigint)) AS grants_revoked,
  TRY_CAST(json_extract(event, '$.data.scopes') AS array(varchar)) AS scopes,
  dt
FROM grantex_events;

-- Each event once. Repeats lie in the same day, which stands in PARTITION BY so that a condition
-- on it still reads only its days.
CREATE OR REPLACE VIEW grantex_events_once AS
SELECT
  event_id,
  event_type,
  created_at,
  data,
  grant_id,
  agent_id,
  principal_id,
  parent_grant_id,
  cascade,
  cause,
  service,
  percent,
  delegation_depth,
  anomalies,
  grants_revoked,
  scopes,
  dt
FROM (
  SELECT *, row_number() OVER (PARTITION BY dt, event_id ORDER BY event_type) AS copy
  FROM grantex_events_stored
)
WHERE copy = 1;

-- Whose a grant is: revocations and budgets name only the grant.
CREATE OR REPLACE VIEW grantex_events_grants AS
SELECT grant_id, agent_id, principal_id, created_at
FROM (
  SELECT
    grant_id,
    agent_id,
    principal_id,
    created_at,
    ROW_NUMBER() OVER (PARTITION BY grant_id ORDER BY created_at DESC, event_id) AS newest
  FROM grantex_events_once
  WHERE event_type IN ('grant.created', 'token.issued') AND grant_id IS NOT NULL
)
WHERE newest = 1;

CREATE OR REPLACE VIEW grantex_events_joined AS
SELECT
  e.event_id,
  e.event_type,
  e.created_at,
  e.data,
  e.grant_id,
  COALESCE(e.agent_id, g.agent_id) AS agent_id,
  COALESCE(e.principal_id, g.principal_id) AS principal_id,
  e.parent_grant_id,
  e.cascade,
  e.cause,
  e.service,
  e.percent,
  e.delegation_depth,
  e.anomalies,
  e.grants_revoked,
  e.scopes,
  e.dt
FROM grantex_events_once AS e
LEFT JOIN grantex_events_grants AS g ON e.grant_id = g.grant_id;
