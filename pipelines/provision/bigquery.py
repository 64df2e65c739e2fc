"""`provision bigquery`: dataset, table, the views of the packs' queries, and the procedure that erases a
person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from pipelines.flags.provision import OfBigQuery, program
from pipelines.flags.settings import Settings
from pipelines.packs import retention, sql
from pipelines.provision.google_api import WHO, GoogleApi, part
from pipelines.provision.plan import CannotProvision, Plan, Thing, plan_of, required
from transforms.write.bigquery.table import TableName, definition, mismatch, parse_table

ABOUT = """
Sets up a BigQuery for the job: the dataset (where --bigquery_location says), the table with the columns that
the job writes, the views that remove repeats and join agents and principals, and the procedure that erases a
person. Google's application default credentials are used. What is there already is left alone; what somebody
made otherwise is shown. Exit code 0: it is as shown, or was; 1: it is not; 2: wrong parameters.
"""
USES = "bigquery_table bigquery_schema bigquery_method bigquery_endpoint bigquery_storage_endpoint"
PROGRAM = program("bigquery", ABOUT, USES, asks=OfBigQuery)
ROOT = "https://bigquery.googleapis.com"
ROLES = "the role BigQuery Data Owner (roles/bigquery.dataOwner) on the dataset, or on the project to make it"
DAY = 86_400_000  # milliseconds


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    table = _table(settings)
    root = settings["bigquery_endpoint"] or ROOT
    api = GoogleApi(f"{root}/bigquery/v2", ROLES, settings.way_out)
    dataset = _dataset(api, table, settings["bigquery_location"])
    things = [dataset, *_in_dataset(api, table, settings, dataset.found is not None)]
    return plan_of(f"BigQuery at {root}", things, [_grant(table)], settings["overwrite"])


def files(settings: Settings) -> Mapping[str, str]:
    """All of it in SQL."""
    table, location = _table(settings), settings["bigquery_location"]
    options = f' OPTIONS (location = "{location}")' if location else ""
    views = sql.bigquery_views(str(table), settings["bigquery_schema"])
    body = definition(table, settings["bigquery_schema"])
    texts = [
        f"CREATE SCHEMA IF NOT EXISTS `{table.project}.{table.dataset}`{options};\n",
        _create_table(table, body),
        *views.values(),
        retention.ERASE.format(table=table),
    ]
    if framework := settings["retention"]:
        texts.append(retention.expiration(retention.framework(framework), str(table)))
    return {"bigquery.sql": "\n".join(texts), "grant.sql": f"-- The job's own right.\n{_grant_sql(table)}\n"}


def _table(settings: Settings) -> TableName:
    return parse_table(required(settings, "bigquery_table", "bigquery"))


def _grant(table: TableName) -> str:
    return f"the job's own right, on this table alone: {_grant_sql(table)}"


def _grant_sql(table: TableName) -> str:
    return f'GRANT `roles/bigquery.dataEditor` ON TABLE `{table}` TO "{WHO}";'


def _create_table(table: TableName, body: Mapping[str, Any]) -> str:
    lines = []
    for field in body["schema"]["fields"]:
        required = " NOT NULL" if field["mode"] == "REQUIRED" else ""
        lines.append(
            f'  {field["name"]} {field["type"]}{required} OPTIONS (description = "{field["description"]}")'
        )
    by = body["timePartitioning"].get("field")
    partition = f"DATE({by})" if by else "_PARTITIONDATE"
    columns = ",\n".join(lines)
    return (
        f"CREATE TABLE IF NOT EXISTS `{table}` (\n{columns}\n)\nPARTITION BY {partition}\n"
        f"CLUSTER BY {', '.join(body['clustering']['fields'])}\n"
        f'OPTIONS (description = "{body["description"]}");\n'
    )


# What is there


def _at(table: TableName) -> str:
    return f"/projects/{part(table.project)}/datasets/{part(table.dataset)}"


def _dataset(api: GoogleApi, table: TableName, location: str) -> Thing:
    found = api.get(_at(table))
    if found is None and not location:
        raise CannotProvision(
            f"--bigquery_location: is missing, and the dataset {table.project}.{table.dataset} is to be "
            "made: where is its data to live? For example --bigquery_location=EU; it cannot be changed later",
            bad=True,
        )
    wanted = {"location": location.upper() if len(location) == 2 else location} if location else {}
    body = {
        "datasetReference": {"projectId": table.project, "datasetId": table.dataset},
        "description": "Events of Grantex.",
        **wanted,
    }
    make = partial(api.ask, "POST", f"/projects/{part(table.project)}/datasets", body)
    what = f"the dataset {table.project}.{table.dataset}"
    return Thing(what, wanted, found, make, by_hand="a dataset stays where it was made: name another one")


def _in_dataset(api: GoogleApi, table: TableName, settings: Settings, is_there: bool) -> Iterator[Thing]:
    """is_there: the dataset is."""
    tables = f"{_at(table)}/tables"
    schema = settings["bigquery_schema"]
    body = definition(table, schema)
    found = api.get(f"{tables}/{part(table.table)}") if is_there else None
    yield _as_defined(table, body, found, schema, partial(api.ask, "POST", tables, body))
    if settings["retention"]:
        yield _expiration(api, table, settings["retention"], body, found)
    for name, text in sql.bigquery_views(str(table), schema).items():
        yield _view(api, table, name.rpartition(".")[2], _query_of(text), is_there)
    yield _procedure(api, table, is_there)


def _as_defined(table: TableName, body: Mapping[str, Any], found: Any, schema: Any, make: Any) -> Thing:
    """The table: the columns that the job writes, partitions and clusters. Its text is ours to say."""
    wanted = {
        "columns": _columns(body),
        "partitions": _partitions(body),
        "clusters": ", ".join(body["clustering"]["fields"]),
    }
    what = f"the table {table}"
    if found is None:
        return Thing(what, wanted, None, make)
    there = {
        # What the job can live with is no difference: further columns, say.
        "columns": _columns(found) if mismatch(table, schema, found) else wanted["columns"],
        "partitions": _partitions(found),
        "clusters": ", ".join(found.get("clustering", {}).get("fields", ())),
    }
    why = mismatch(table, schema, found) or (
        "the job can fill it as it is; partitions and clusters are for the price of queries, and are chosen "
        "when a table is made"
    )
    return Thing(what, wanted, there, make, by_hand=why)


def _columns(table: Mapping[str, Any]) -> str:
    return ", ".join(f"{each['name']} {each['type']}" for each in table.get("schema", {}).get("fields", ()))


def _partitions(table: Mapping[str, Any]) -> str:
    found = table.get("timePartitioning", {})
    return f"{found.get('type', 'none')} of {found.get('field', 'arrival')}".lower()


def _expiration(api: GoogleApi, table: TableName, name: str, body: Mapping[str, Any], found: Any) -> Thing:
    """Partitions that go after the framework's years."""
    framework = retention.framework(name)
    milliseconds = str(retention.days(framework.advised) * DAY)
    partitions = {**body["timePartitioning"], "expirationMs": milliseconds}
    there = (found or {}).get("timePartitioning", {}).get("expirationMs")
    patch = partial(
        api.ask, "PATCH", f"{_at(table)}/tables/{part(table.table)}", {"timePartitioning": partitions}
    )
    at_once = ", those that are older at once" if found else ""
    what = f"partitions go after {retention.days(framework.advised)} days ({framework.title}){at_once}"
    return Thing(
        what,
        {"expirationMs": milliseconds},
        None if there is None else {"expirationMs": str(there)},
        patch,
        patch,
    )


def _query_of(text: str) -> str:
    """The SELECT of a CREATE VIEW."""
    return text.partition(" AS\n")[2].strip().rstrip(";")


def _view(api: GoogleApi, table: TableName, name: str, query: str, is_there: bool) -> Thing:
    tables = f"{_at(table)}/tables"
    found = api.get(f"{tables}/{part(name)}") if is_there else None
    view = {"query": query, "useLegacySql": False}
    reference = {"projectId": table.project, "datasetId": table.dataset, "tableId": name}
    return Thing(
        f"the view {name}",
        {"query": query},
        None if found is None else {"query": str(found.get("view", {}).get("query", "")).strip().rstrip(";")},
        partial(api.ask, "POST", tables, {"tableReference": reference, "view": view}),
        partial(api.ask, "PATCH", f"{tables}/{part(name)}", {"view": view}),
    )


def _procedure(api: GoogleApi, table: TableName, is_there: bool) -> Thing:
    routines, name = f"{_at(table)}/routines", f"{table.table}_erase"
    found = api.get(f"{routines}/{part(name)}") if is_there else None
    text = retention.ERASE.format(table=table)
    body = text[text.index("BEGIN") :].strip().rstrip(";")
    routine = {
        "routineReference": {"projectId": table.project, "datasetId": table.dataset, "routineId": name},
        "routineType": "PROCEDURE",
        "language": "SQL",
        "arguments": [{"name": "person", "dataType": {"typeKind": "STRING"}}],
        "definitionBody": body,
    }
    return Thing(
        f'the procedure {name} (GDPR): CALL `{table}_erase`("PERSON")',
        {"definitionBody": body},
        None
        if found is None
        else {"definitionBody": str(found.get("definitionBody", "")).strip().rstrip(";")},
        partial(api.ask, "POST", routines, routine),
        partial(api.ask, "PUT", f"{routines}/{part(name)}", routine),
    )
