"""The catalogue in SQL: for BigQuery's table, and for Athena over the archive on S3.

Both have the same views, with the same columns, so that a detection is written once: <table>_stored has every
row with what its data says as columns, <table>_once each event once, <table>_grants the agent and principal
of each grant, <table>_joined every event with the agent and principal that it names or that its grant belongs
to.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pipelines.packs.detection import Detection, expanded
from transforms.write.bigquery.rows import SchemaName

Dialect = Literal["bigquery", "athena"]


# As it stands in the rendered files; users put their own in.
BIGQUERY_TABLE = "PROJECT.DATASET.events"
ATHENA_TABLE = "grantex_events"
ATHENA_LOCATION = "s3://BUCKET/grantex-events"


def query(detection: Detection, dialect: Dialect, table: str = "") -> str:
    """The detection's query. It looks back from now, and its rows are what was found."""
    functions = bigquery(table or BIGQUERY_TABLE) if dialect == "bigquery" else athena(table or ATHENA_TABLE)
    return expanded(detection.filled(detection.sql), functions).strip() + "\n"


def span(minutes: str) -> str:
    """Minutes as `millis` counts."""
    return str(int(minutes) * 60_000)


def bigquery(table: str) -> Mapping[str, Callable[..., str]]:
    """The functions of detections' SQL in GoogleSQL."""

    def before(time: str, number: str, unit: str) -> str:
        return f"TIMESTAMP_SUB({time}, INTERVAL {number} {unit})"

    return {
        "table": lambda kind: f"`{table}_{kind}`",
        "before": before,
        "ago": lambda number, unit: before("CURRENT_TIMESTAMP()", number, unit),
        "since": lambda number, unit: f"created_at >= {before('CURRENT_TIMESTAMP()', number, unit)}",
        "hour": lambda time: f"TIMESTAMP_TRUNC({time}, HOUR)",
        "five_minutes": lambda time: f"TIMESTAMP_SECONDS(DIV(UNIX_SECONDS({time}), 300) * 300)",
        "millis": lambda time: f"UNIX_MILLIS({time})",
        "span": span,
        "each": lambda array, name: f"CROSS JOIN UNNEST({array}) AS {name}",
    }


def athena(table: str) -> Mapping[str, Callable[..., str]]:
    """The same in Athena's (Trino's). `since` also names the days, so that no other partition is read."""
    now = "CAST(current_timestamp AT TIME ZONE 'UTC' AS timestamp)"

    def before(time: str, number: str, unit: str) -> str:
        return f"{time} - INTERVAL '{number}' {unit}"

    def since(number: str, unit: str) -> str:
        start = before(now, number, unit)
        return f"dt >= date_format({start}, '%Y-%m-%d') AND created_at >= {start}"

    return {
        "table": lambda kind: f"{table}_{kind}",
        "before": before,
        "ago": lambda number, unit: before(now, number, unit),
        "since": since,
        "hour": lambda time: f"date_trunc('hour', {time})",
        "five_minutes": lambda time: (
            f"date_add('minute', -(minute({time}) % 5), date_trunc('minute', {time}))"
        ),
        "millis": lambda time: f"CAST(to_unixtime({time}) * 1000 AS bigint)",
        "span": span,
        "each": lambda array, name: f"CROSS JOIN UNNEST({array}) AS each_of_them ({name})",
    }


# Columns of the views, as the path in an event's data.
TEXTS = {
    "grant_id": "grantId",
    "agent_id": "agentId",
    "principal_id": "principalId",
    "parent_grant_id": "parentGrantId",
    "cascade": "cascade",
    "cause": "cause",
    "service": "service",
}
NUMBERS = {
    "percent": "pct",
    "delegation_depth": "delegationDepth",
    "anomalies": "anomalyCount",
}
COLUMNS = ("event_id", "event_type", "created_at", "data", *TEXTS, *NUMBERS, "grants_revoked", "scopes")


def bigquery_views(table: str = BIGQUERY_TABLE, schema: SchemaName = "typed") -> Mapping[str, str]:
    """CREATE VIEW statements by the view's name, in the order in which they are made.

    table: "project.dataset.table"; schema: the columns that --bigquery_schema wrote.
    """
    typed = schema == "typed"
    # "compatible" has RFC 3339 text, with or without a fraction of a second.
    created_at = "created_at" if typed else "SAFE_CAST(created_at AS TIMESTAMP) AS created_at"
    columns = ["event_id", "event_type", created_at, "data"]
    columns += [f"JSON_VALUE(data, '$.{path}') AS {name}" for name, path in TEXTS.items()]
    columns += [
        f"SAFE_CAST(JSON_VALUE(data, '$.{path}') AS INT64) AS {name}" for name, path in NUMBERS.items()
    ]
    columns += [
        "COALESCE(ARRAY_LENGTH(JSON_VALUE_ARRAY(data, '$.grantIds')), "
        "SAFE_CAST(JSON_VALUE(data, '$.revokedGrants') AS INT64)) AS grants_revoked",
        "JSON_VALUE_ARRAY(data, '$.scopes') AS scopes",
    ]
    if typed:
        columns.append("event")
    stored = (
        "-- Every row as it was delivered.\n"
        f"CREATE OR REPLACE VIEW `{table}_stored` AS\nSELECT\n{_lines(columns)}\nFROM `{table}`;\n"
    )
    once = (
        "-- Each event once, whatever was delivered twice. Repeats have the same created_at, which stands\n"
        "-- in PARTITION BY so that a condition on it still reads only its days.\n"
        f"CREATE OR REPLACE VIEW `{table}_once` AS\nSELECT *\nFROM `{table}_stored`\n"
        "QUALIFY ROW_NUMBER() OVER (PARTITION BY created_at, event_id ORDER BY event_type) = 1;\n"
    )
    return {
        f"{table}_stored": stored,
        f"{table}_once": once,
        f"{table}_grants": _grants(f"`{table}_once`", f"`{table}_grants`"),
        f"{table}_joined": _joined(f"`{table}_once`", f"`{table}_grants`", f"`{table}_joined`", ()),
    }


def athena_table(table: str = ATHENA_TABLE, location: str = ATHENA_LOCATION) -> str:
    """CREATE EXTERNAL TABLE over the Hive layout. An event is one column, the line as it is: no reader of
    JSON stands between, which would fold names to lower case and stop at one odd line.

    Partitions are projected and not registered: those of hours to come are there already. Events without a
    readable createdAt (dt=__HIVE_DEFAULT_PARTITION__) are on S3 and not in this table.
    """
    properties = ",\n".join(f"  '{name}' = '{value}'" for name, value in athena_projection(location).items())
    return (
        f"CREATE EXTERNAL TABLE IF NOT EXISTS {table} (event string)\n"
        "PARTITIONED BY (dt string, hour string)\n"
        "ROW FORMAT DELIMITED FIELDS TERMINATED BY '\\001' LINES TERMINATED BY '\\n'\n"
        "STORED AS TEXTFILE\n"
        f"LOCATION '{location}/'\n"
        f"TBLPROPERTIES (\n{properties}\n);\n"
    )


def athena_projection(location: str) -> Mapping[str, str]:
    """The table's properties: which partitions there are, by rule."""
    return {
        "projection.enabled": "true",
        "projection.dt.type": "date",
        "projection.dt.format": "yyyy-MM-dd",
        "projection.dt.range": "2025-01-01,NOW+1DAYS",
        "projection.dt.interval": "1",
        "projection.dt.interval.unit": "DAYS",
        "projection.hour.type": "integer",
        "projection.hour.range": "0,23",
        "projection.hour.digits": "2",
        "storage.location.template": f"{location}/dt=${{dt}}/hour=${{hour}}/",
    }


def athena_in_glue(table: str, location: str) -> Mapping[str, Any]:
    """The same table as Glue's catalogue takes it (TableInput)."""
    return {
        "Name": table,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", **athena_projection(location)},
        "PartitionKeys": [{"Name": name, "Type": "string"} for name in ("dt", "hour")],
        "StorageDescriptor": {
            "Columns": [{"Name": "event", "Type": "string"}],
            "Location": f"{location}/",
            "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
            "SerdeInfo": {
                "SerializationLibrary": "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe",
                "Parameters": {"field.delim": "\x01", "line.delim": "\n", "serialization.format": "\x01"},
            },
        },
    }


def athena_views(table: str = ATHENA_TABLE) -> Mapping[str, str]:
    """CREATE VIEW statements by the view's name, in the order in which they are made. Athena takes one
    statement at a time."""

    def text(path: str) -> str:
        return f"json_extract_scalar(event, '$.{path}')"

    time = f"from_iso8601_timestamp({text('createdAt')})"
    columns = [
        f"{text('id')} AS event_id",
        f"{text('type')} AS event_type",
        f"TRY(CAST({time} AT TIME ZONE 'UTC' AS timestamp)) AS created_at",
        "json_format(json_extract(event, '$.data')) AS data",
    ]
    columns += [f"{text(f'data.{path}')} AS {name}" for name, path in TEXTS.items()]
    columns += [f"TRY_CAST({text(f'data.{path}')} AS bigint) AS {name}" for name, path in NUMBERS.items()]
    columns += [
        "COALESCE(CAST(json_array_length(json_extract(event, '$.data.grantIds')) AS bigint), "
        f"TRY_CAST({text('data.revokedGrants')} AS bigint)) AS grants_revoked",
        "TRY_CAST(json_extract(event, '$.data.scopes') AS array(varchar)) AS scopes",
        "dt",
    ]
    stored = f"CREATE OR REPLACE VIEW {table}_stored AS\nSELECT\n{_lines(columns)}\nFROM {table};\n"
    named = ",\n".join(f"  {name}" for name in (*COLUMNS, "dt"))
    once = [
        "-- Each event once. Repeats lie in the same day, which stands in PARTITION BY so that a condition",
        "-- on it still reads only its days.",
        f"CREATE OR REPLACE VIEW {table}_once AS\nSELECT\n{named}\nFROM (",
        "  SELECT *, row_number() OVER (PARTITION BY dt, event_id ORDER BY event_type) AS copy",
        f"  FROM {table}_stored\n)\nWHERE copy = 1;\n",
    ]
    return {
        f"{table}_stored": stored,
        f"{table}_once": "\n".join(once),
        f"{table}_grants": _grants(f"{table}_once", f"{table}_grants"),
        f"{table}_joined": _joined(f"{table}_once", f"{table}_grants", f"{table}_joined", ("dt",)),
    }


def _grants(once: str, grants: str) -> str:
    return (
        "-- Whose a grant is: revocations and budgets name only the grant.\n"
        f"CREATE OR REPLACE VIEW {grants} AS\nSELECT grant_id, agent_id, principal_id, created_at\nFROM (\n"
        "  SELECT\n    grant_id,\n    agent_id,\n    principal_id,\n    created_at,\n"
        "    ROW_NUMBER() OVER (PARTITION BY grant_id ORDER BY created_at DESC, event_id) AS newest\n"
        f"  FROM {once}\n"
        "  WHERE event_type IN ('grant.created', 'token.issued') AND grant_id IS NOT NULL\n)\n"
        "WHERE newest = 1;\n"
    )


def _joined(once: str, grants: str, joined: str, more: tuple[str, ...]) -> str:
    own = {"agent_id", "principal_id"}
    columns = [
        f"COALESCE(e.{name}, g.{name}) AS {name}" if name in own else f"e.{name}"
        for name in (*COLUMNS, *more)
    ]
    return (
        f"CREATE OR REPLACE VIEW {joined} AS\nSELECT\n{_lines(columns)}\nFROM {once} AS e\n"
        f"LEFT JOIN {grants} AS g ON e.grant_id = g.grant_id;\n"
    )


def _lines(columns: list[str]) -> str:
    return textwrap.indent(",\n".join(columns), "  ")
