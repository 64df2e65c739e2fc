"""What the tests of BigQuery share: settings that reach a practice server, and a look at what it holds."""

from __future__ import annotations

from collections import Counter

from pipelines.practice.bigquery import PracticeBigQuery
from transforms.batch import BatchPolicy
from transforms.write.bigquery.destination import POLICY, BigQuery, Method
from transforms.write.bigquery.rows import SchemaName

TABLE = "events"


def reaching(
    server: PracticeBigQuery,
    method: Method = "storage_write",
    schema: SchemaName = "typed",
    policy: BatchPolicy = POLICY,
) -> BigQuery:
    name = f"{server.project}.{server.dataset}.{TABLE}"
    return BigQuery(
        name, method, schema, endpoint=server.url, storage_endpoint=server.storage_url, policy=policy
    )


def ids(server: PracticeBigQuery) -> Counter[str]:
    """Every event_id in the table, as often as it is there."""
    return Counter(str(row["event_id"]) for row in server.rows(TABLE))
