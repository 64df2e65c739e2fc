-- Replace PROJECT.DATASET.events with your table. For --bigquery_schema=compatible.

-- Every row as it was delivered.
CREATE OR REPLACE VIEW `PROJECT.DATASET.events_stored` AS
SELECT
  event_id,
  event_type,
  SAFE_CAST(created_at AS TIMESTAMP) AS created_at,
  data,
  JSON_VALUE(data, '$.grantId') AS grant_id,
  JSON_VALUE(data, '$.agentId') AS agent_id,
  JSON_VALUE(data, '$.principalId') AS principal_id,
  JSON_VALUE(data, '$.parentGrantId') AS parent_grant_id,
  JSON_VALUE(data, '$.cascade') AS cascade,
  JSON_VALUE(data, '$.cause') AS cause,
  JSON_VALUE(data, '$.service') AS service,
  SAFE_CAST(JSON_VALUE(data, '$.pct') AS INT64) AS percent,
  SAFE_CAST(JSON_VALUE(data, '$.delegationDepth') AS INT64) AS delegation_depth,
  SAFE_CAST(JSON_VALUE(data, '$.anomalyCount') AS INT64) AS anomalies,
  COALESCE(ARRAY_LENGTH(JSON_VALUE_ARRAY(data, '$.grantIds')), SAFE_CAST(JSON_VALUE(data, '$.revokedGrants') AS INT64)) AS grants_revoked,
  JSON_VALUE_ARRAY(data, '$.scopes') AS scopes
FROM `PROJECT.DATASET.events`;

-- Each event once, whatever was delivered twice. Repeats have the same created_at, which stands
-- in PARTITION BY so that a condition on it still reads only its days.
CREATE OR REPLACE VIEW `PROJECT.DATASET.events_once` AS
SELECT *
FROM `PROJECT.DATASET.events_stored`
QUALIFY ROW_NUMBER() OVER (PARTITION BY created_at, event_id ORDER BY event_type) = 1;

-- Whose a grant is: revocations and budgets name only the grant.
CREATE OR REPLACE VIEW `PROJECT.DATASET.events_grants` AS
SELECT grant_id, agent_id, principal_id, created_at
FROM (
  SELECT
    grant_id,
    agent_id,
    principal_id,
    created_at,
    ROW_NUMBER() OVER (PARTITION BY grant_id ORDER BY created_at DESC, event_id) AS newest
  FROM `PROJECT.DATASET.events_once`
  WHERE event_type IN ('grant.created', 'token.issued') AND grant_id IS NOT NULL
)
WHERE newest = 1;

CREATE OR REPLACE VIEW `PROJECT.DATASET.events_joined` AS
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
  e.scopes
FROM `PROJECT.DATASET.events_once` AS e
LEFT JOIN `PROJECT.DATASET.events_grants` AS g ON e.grant_id = g.grant_id;
