"""docs/packs.md, made of the catalogue."""

from __future__ import annotations

from collections.abc import Iterator

from pipelines.packs import retention
from pipelines.packs.detection import LANGUAGES, Detection, Language
from pipelines.packs.detections import CATALOGUE, NOT_SHOWN
from pipelines.packs.detections.exporter import SERVICE_RULES

TITLES: dict[Language, str] = {
    "splunk": "Splunk",
    "datadog": "Datadog",
    "bigquery": "BigQuery",
    "athena": "Athena",
    "prometheus": "Prometheus",
}
INTRODUCTION = """# Packs

Made by `python -m pipelines.packs` from `pipelines/packs/detections/`; a test fails when this page or a file
of `templates/packs/` is not what it makes.

Ready-made alerts, searches, dashboards and queries. Each stands once, in Python, and is rendered for every
language that can say it. To change a threshold for yourself, change the rendered file; to change it for
everybody, the definition.

Three facts about the events that all of them respect, and that ready-made queries elsewhere get wrong:

- **A revocation and a budget name only their grant.** Agent and principal come from that grant's newest
  `grant.created` or `token.issued`, by a view (SQL) or a lookup that a search keeps (Splunk). Datadog cannot
  join: there it is the grant's id.
- **`budget.threshold` comes again with every debit past a mark.** The first of each grant and mark counts.
- **Delivery is at least once**: every query reads an event once, by its id.

Silence is no loss, and "no event in 15 minutes" no heartbeat: a quiet tenant sends nothing. Whether the feed
is heard is `feed_down`'s to say, from the job's own metrics.

## Set up

"""
# What, how it is set up, and what checked it here.
SETTING_UP = (
    (
        "Splunk",
        "`grantex-beam provision splunk`, or copy `templates/packs/splunk/grantex_beam` to "
        "`$SPLUNK_HOME/etc/apps`; its README says the rest. Without the app: "
        "`templates/packs/splunk/searches`",
        "AppInspect. **What each search finds is to be verified on a Splunk**: `make verify-splunk` sends "
        "events and runs every search",
    ),
    (
        "Datadog",
        "`grantex-beam provision datadog`, or post the bodies of `templates/packs/datadog` with an API key "
        "and an application key: "
        "`pipeline.json` to `/api/v1/logs/config/pipelines`, each of `monitors.json` to `/api/v1/monitor`, "
        "`dashboard.json` to `/api/v1/dashboard`, `metric.json` to `/api/v2/logs/config/metrics`, each of "
        "`security_rules.json` (Cloud SIEM) to `/api/v2/security_monitoring/rules`. Make facets of `@id` "
        "and `@grantex.*` first",
        "the vendor's typed models. **What each monitor finds is to be verified on Datadog**: "
        "`make verify-datadog`",
    ),
    (
        "BigQuery",
        "`grantex-beam provision bigquery`, or run `templates/packs/bigquery/views.sql`; then any query",
        "bqemulator, over events that our own destination wrote",
    ),
    (
        "Athena",
        "`grantex-beam provision s3 --athena_database=NAME`, or run `templates/packs/athena/table.sql`; then "
        "each statement of `views.sql`, then any query",
        "DuckDB over our own files; the SQL is transpiled from Athena's",
    ),
    (
        "Prometheus",
        "`templates/packs/prometheus`: rules, how to scrape, Alertmanager's routes",
        "promtool, a real Prometheus and Alertmanager",
    ),
    (
        "Grafana",
        "import `templates/packs/grafana/grantex_beam.json`; it asks for the Prometheus",
        "Grafana's typed models, every query by promtool",
    ),
)
AFTER = (
    "\nA Datadog monitor counts by the event's own time: what arrives after an outage, later than its "
    "window, does not alert there. Splunk's alerts look at what was indexed last, and do.\n\n"
)


def page() -> str:
    """The text of docs/packs.md."""
    parts = [
        INTRODUCTION,
        *_setting_up(),
        AFTER,
        "## Catalogue\n\n",
        *_table(),
        "\n",
        *_entries(),
        *_names(),
        *_service(),
        *_retention(),
    ]
    return "".join(parts)


def _setting_up() -> Iterator[str]:
    yield "| | set up | checked here by |\n|---|---|---|\n"
    for what, how, checked in SETTING_UP:
        yield f"| {what} | {how} | {checked} |\n"


def _table() -> Iterator[str]:
    yield "| detection | | severity | " + " | ".join(TITLES.values()) + " |\n"
    yield "|---" * (3 + len(LANGUAGES)) + "|\n"
    for one in CATALOGUE:
        marks = " | ".join("yes" if each in one.languages() else "" for each in LANGUAGES)
        kind = one.severity if one.alerts else "report"
        yield f"| [{one.name}](#{one.name}) | {one.title} | {kind} | {marks} |\n"


def _entries() -> Iterator[str]:
    for one in CATALOGUE:
        yield f"### {one.name}\n\n**{one.title}.** {one.why}\n\n**What to do**: {one.todo}\n\n"
        if one.thresholds:
            found = [f"`{name}` = {each.value} ({each.meaning})" for name, each in one.thresholds.items()]
            yield f"**Thresholds**: {', '.join(found)}.\n\n"
        yield from _rules(one)
        for language, reason in _reasons(one).items():
            yield f"Not in {language}: {reason}\n\n"


def _rules(one: Detection) -> Iterator[str]:
    if one.rules:
        yield "| alert | when | for | severity |\n|---|---|---|---|\n"
        for rule in one.rules:
            expr = one.filled(rule.expr)
            yield f"| {rule.alert} | `{_cell(expr)}` | {rule.lasts} | {rule.severity} |\n"
        yield "\n"


def _reasons(one: Detection) -> dict[str, str]:
    """By the languages that share a reason, only where it says something."""
    if one.rules:
        return {"the others": one.without["splunk"]}
    return {TITLES[language]: reason for language, reason in one.without.items()}


def _names() -> Iterator[str]:
    yield "## Names that the service's guides use\n\n| name | here |\n|---|---|\n"
    for one in CATALOGUE:
        for name in one.known_as:
            yield f"| {name} | [{one.name}](#{one.name}) |\n"
    for name, reason in NOT_SHOWN.items():
        yield f"| {name} | **cannot be seen in events.** {reason} |\n"
    yield "\n"


def _service() -> Iterator[str]:
    yield (
        "## The service's own metrics\n\n`templates/packs/prometheus/grantex_service.rules.yml`, with the "
        "thresholds of the service's guide. Its `/metrics` wants your API key and answers ten times a "
        "minute.\n\n| alert | when | severity |\n|---|---|---|\n"
    )
    for rule in SERVICE_RULES:
        yield f"| {rule.alert} | `{_cell(rule.expr)}` | {rule.severity} |\n"
    yield "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _retention() -> Iterator[str]:
    yield (
        "## Retention\n\n`templates/packs/retention`: lifecycle rules for S3 and GCS, Object Lock, "
        "BigQuery's expiration. The years are those of the service's guide, in whole years (a bare 365 days "
        "a year ends too early); what your auditor says goes before them. S3: STANDARD_IA after 30 days, "
        "GLACIER after 90, DEEP_ARCHIVE after 365. Object Lock in COMPLIANCE mode cannot be taken back by "
        "anybody.\n\n| | at least | kept | |\n|---|---|---|---|\n"
    )
    for one in retention.FRAMEWORKS:
        least = f"{one.least} y" if one.least else "as needed"
        kept = f"{one.advised} y ({retention.days(one.advised)} days)"
        yield f"| {one.title} | {least} | {kept} | {one.note} |\n"
