"""The catalogue as a Splunk app: saved searches, alerts, macros, field aliases, a dashboard.

No Splunk can be had for tests: what can be checked without one is (AppInspect, the practice management port).
What each search must find is in tests/packs/cases.py, and `make verify-splunk` asks a real one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from pipelines.packs import runbook
from pipelines.packs.detection import Detection, Search
from pipelines.packs.detections import CATALOGUE

APP = "grantex_beam"
VERSION = "1.0.0"

# Whose a grant is, kept by a scheduled search: a revocation names its grant alone, which may be months old.
OWNERS = "grantex_grants"
OWNERS_FIELDS = ("grant_id", "agent_id", "principal_id", "seen_at")
OWNERS_SEARCH = f"""`grantex_index` type IN ("grant.created", "token.issued")
| `grantex_once`
| rename data.grantId AS grant_id, data.agentId AS agent_id, data.principalId AS principal_id
| where isnotnull(grant_id)
| stats latest(agent_id) AS agent_id latest(principal_id) AS principal_id max(_time) AS seen_at by grant_id
| eval _key=grant_id
| outputlookup append=true key_field=_key {OWNERS}"""

SOURCE = "grantex"
MACRO = re.compile(r"`(\w+)`")
SEVERITIES = {"info": 2, "warning": 4, "critical": 5}


def macros(index: str | Sequence[str] | None = None, source: str = SOURCE) -> Mapping[str, str]:
    """The macros of all searches; `index` is where the events are, or several are."""
    # --splunk_index is main, the service's guide says grantex.
    names = ("main", "grantex") if index is None else (index,) if isinstance(index, str) else index
    listed = ", ".join([f'"{name}"' for name in names])
    where = f"index={listed}" if len(names) == 1 else f"index IN ({listed})"
    return {
        "grantex_index": f'{where} source="{source}"',
        # Delivery is at least once. What the Node package wrote has no event_id; its id is the same.
        "grantex_once": "eval event_id=coalesce(event_id, id) | dedup event_id",
        "grantex_owner": f"lookup {OWNERS} grant_id OUTPUTNEW agent_id principal_id",
    }


MACROS = macros()


def expanded(spl: str, index: str | None = None, source: str = SOURCE) -> str:
    """A search without macros, for a Splunk that does not have the app; `index` is where its events are."""
    known = macros(index, source)
    return MACRO.sub(lambda found: known[found[1]], spl)


def searches() -> Mapping[str, Detection]:
    """The catalogue's entries that Splunk can say, by the saved search's name."""
    return {f"Grantex - {one.title}": one for one in CATALOGUE if one.splunk is not None}


def spl(detection: Detection) -> str:
    """A detection's search, with macros. Raises ValueError for one that Splunk cannot say."""
    if detection.splunk is None:
        raise ValueError(f"{detection.name} is not said in SPL")
    return detection.filled(detection.splunk.spl)


def saved_search(detection: Detection) -> Mapping[str, str]:
    """The settings of a detection's saved search, as savedsearches.conf calls them."""
    search = detection.splunk
    if search is None:
        raise ValueError(f"{detection.name} is not said in SPL")
    settings = {
        "description": _description(detection),
        "search": spl(detection),
        "dispatch.earliest_time": search.earliest,
        "dispatch.latest_time": "now",
    }
    return {**settings, **_schedule(detection, search)} if detection.alerts else settings


def _description(detection: Detection) -> str:
    entry = f" Runbook: {runbook.url(detection.name)}" if detection.alerts else ""
    return f"{detection.why} {detection.todo}{entry}"


def _schedule(detection: Detection, search: Search) -> Mapping[str, str]:
    cron = search.cron
    text = spl(detection)
    if search.minutes:
        # A minute behind the search that keeps the owners of grants, and up to the moment of that one.
        cron = "1-59/5 * * * *"
        window = f"_index_earliest=-{search.minutes + 1}m@m _index_latest=-1m@m"
        text = text.replace("`grantex_index`", f"`grantex_index` {window}", 1)
    return {
        "search": text,
        "enableSched": "1",
        "cron_schedule": cron,
        "counttype": "number of events",
        "relation": "greater than",
        "quantity": "0",
        "alert.track": "1",
        "alert.severity": str(SEVERITIES[detection.severity]),
        "alert.digest_mode": "0",
        "alert.suppress": "1",
        "alert.suppress.fields": ",".join(search.once_per),
        "alert.suppress.period": search.quiet,
    }


def conf(stanzas: Mapping[str, Mapping[str, str]]) -> str:
    """A .conf file; a value of several lines goes on after a backslash."""
    parts = []
    for name, settings in stanzas.items():
        lines = [f"{key} = {value}".replace("\n", " \\\n") for key, value in settings.items()]
        parts.append("\n".join([f"[{name}]", *lines, ""]))
    return "\n".join(parts)


def saved_searches() -> Mapping[str, Mapping[str, str]]:
    """Every saved search of the app, that which keeps the owners of grants first."""
    keep = {
        "description": "Keeps the lookup of grants and their agents and principals.",
        "search": OWNERS_SEARCH.replace("`grantex_index`", "`grantex_index` _index_earliest=-15m@m", 1),
        "dispatch.earliest_time": "-7d",
        "dispatch.latest_time": "now",
        "enableSched": "1",
        "cron_schedule": "*/5 * * * *",
    }
    fill = {
        "description": "The same over all time: run it once when the app is new.",
        "search": OWNERS_SEARCH,
        "dispatch.earliest_time": "0",
        "dispatch.latest_time": "now",
    }
    found = {name: saved_search(one) for name, one in searches().items()}
    return {"Grantex - Owners of grants": keep, "Grantex - Owners of grants, first fill": fill, **found}


ALIASES = {
    "FIELDALIAS-grantex": "type AS grantex_event_type data.grantId AS grantex_grant_id "
    "data.agentId AS grantex_agent_id data.principalId AS grantex_principal_id "
    '"data.scopes{}" AS grantex_scopes',
}


def props(source: str = SOURCE) -> Mapping[str, Mapping[str, str]]:
    """Field aliases, bound to our source: _json is everybody's sourcetype."""
    return {f"source::{source}": ALIASES}


def eventtypes(source: str = SOURCE) -> Mapping[str, Mapping[str, str]]:
    """Names for kinds of events."""
    kinds = ("grant", "budget", "anomaly")
    return {f"grantex_{kind}": {"search": f'source="{source}" type="{kind}.*"'} for kind in kinds}


TAGS = {
    "eventtype=grantex_grant": {"change": "enabled"},
    "eventtype=grantex_budget": {"alert": "enabled"},
    "eventtype=grantex_anomaly": {"alert": "enabled"},
}
TRANSFORMS = {
    OWNERS: {
        "external_type": "kvstore",
        "collection": OWNERS,
        "fields_list": ", ".join(("_key", *OWNERS_FIELDS)),
    }
}
COLLECTIONS = {
    OWNERS: {
        **{f"field.{name}": "number" if name == "seen_at" else "string" for name in OWNERS_FIELDS},
        "accelerated_fields.grant": '{"grant_id": 1}',
        "replicate": "false",
    }
}
APP_CONF = {
    "install": {"is_configured": "0", "build": "1"},
    "ui": {"is_visible": "1", "label": "Grantex"},
    "launcher": {
        "author": "grantex-beam",
        "description": "Alerts, searches and a dashboard for events of Grantex, as grantex-beam sends them.",
        "version": VERSION,
    },
    "package": {"id": APP, "check_for_updates": "0"},
    "id": {"name": APP, "version": VERSION},
}
META = """[]
access = read : [ * ], write : [ admin, sc_admin ]
export = none

# Searches from other apps find the same fields. Only events of source grantex have them.
[props]
export = system

[macros]
export = system

[transforms]
export = system

[collections]
export = system

[eventtypes]
export = system

[tags]
export = system
"""
NAV = """<nav search_view="search" color="#1d4f91">
  <view name="grantex_overview" default="true" />
  <view name="search" />
  <view name="reports" />
  <view name="alerts" />
</nav>
"""
# Panels of the dashboard: title, search, chart; the five that the service's guide promises, and an audit
# trail.
Panel = tuple[str, str, str]
PANELS: Sequence[Sequence[Panel]] = (
    (
        (
            "Volume",
            "`grantex_index` | `grantex_once` | timechart span=1h count AS events",
            "area",
        ),
        ("By type", "`grantex_index` | `grantex_once` | stats count AS events by type", "pie"),
    ),
    (
        (
            "Revocations",
            '`grantex_index` type="grant.revoked" | `grantex_once` | timechart span=1h count AS revocations',
            "line",
        ),
        (
            "Top 10 agents by tokens",
            '`grantex_index` type="token.issued" | `grantex_once` | rename data.agentId AS agent_id '
            "| stats count AS tokens by agent_id | sort 10 -tokens",
            "bar",
        ),
    ),
    (
        (
            "Budgets: first of each mark",
            '`grantex_index` type="budget.*" | `grantex_once` | rename data.grantId AS grant_id '
            '| eval mark=if(type="budget.exhausted", "exhausted", \'data.pct\'." %") '
            "| stats min(_time) AS first_at by grant_id mark | `grantex_owner` | sort 0 -first_at "
            '| fieldformat first_at=strftime(first_at, "%F %T")',
            "table",
        ),
    ),
    (
        (
            "Audit trail of $principal$",
            "`grantex_index` | `grantex_once` | rename data.grantId AS grant_id, data.agentId AS agent_id, "
            "data.principalId AS principal_id | `grantex_owner` | search principal_id=$principal|s$ "
            "| table _time type grant_id agent_id event_id | sort 0 _time",
            "table",
        ),
    ),
)


def dashboard() -> str:
    """The dashboard in Simple XML."""
    lines = [
        '<form version="1.1" theme="light">',
        "  <label>Grantex</label>",
        "  <description>Every event once, repeats removed.</description>",
        '  <fieldset submitButton="false" autoRun="true">',
        '    <input type="time" token="time" searchWhenChanged="true">',
        "      <label>Time</label>",
        "      <default><earliest>-24h@h</earliest><latest>now</latest></default>",
        "    </input>",
        '    <input type="text" token="principal" searchWhenChanged="true">',
        "      <label>Principal (for the audit trail)</label>",
        "    </input>",
        "  </fieldset>",
    ]
    for row in PANELS:
        lines.append("  <row>")
        lines += [_panel(*panel) for panel in row]
        lines.append("  </row>")
    return "\n".join([*lines, "</form>", ""])


def _panel(title: str, search: str, chart: str) -> str:
    kind = "table" if chart == "table" else "chart"
    option = "" if chart == "table" else f'\n        <option name="charting.chart">{chart}</option>'
    return f"""    <panel>
      <title>{escape(title)}</title>
      <{kind}>
        <search>
          <query>{escape(search)}</query>
          <earliest>$time.earliest$</earliest>
          <latest>$time.latest$</latest>
        </search>{option}
      </{kind}>
    </panel>"""


README = f"""# Grantex for Splunk

Alerts, searches, field aliases and a dashboard for events of Grantex as grantex-beam sends them (source
`grantex`, sourcetype `_json`). Made by `python -m pipelines.packs`; change the definitions, not these files.

1. Copy the directory `{APP}` to `$SPLUNK_HOME/etc/apps` (or install it as a package) and restart.
2. Is your index neither `main` nor `grantex`? Set it in the macro `grantex_index`.
3. Run the report "Grantex - Owners of grants, first fill" once. A search keeps it up every five minutes: a
   revocation names its grant alone, and this is how alerts know the agent and the principal.
4. Give the alerts an action (mail, webhook). They are on, and listed under Activity > Triggered Alerts.

Every search reads an event once (`dedup event_id`: delivery is at least once). Alerts look at what was
*indexed* in the last minutes, so that an event that comes late is not missed; one that is more than a day
late is. `_json` makes fields of the whole event (`type`, `data.grantId`): no `spath`. "Unusual scope" and
"Unknown agent" read 30 days once an hour: with millions of tokens a day keep to `grant.created` in them, or
accelerate.
To be verified on a Splunk: AppInspect passes, what each search finds was not tried on one by its makers
(`make verify-splunk URL=... TOKEN=...` does).
"""


def files() -> Mapping[str, str]:
    """Path below templates/packs, and text."""
    found = {f"splunk/searches/{one.name}.spl": expanded(spl(one)) + "\n" for one in searches().values()}
    return {**found, **{f"splunk/{name}": text for name, text in app().items()}}


def app(index: str | Sequence[str] | None = None, source: str = SOURCE) -> Mapping[str, str]:
    """The app's files, for events of this source in this index."""
    definitions = {name: {"definition": text} for name, text in macros(index, source).items()}
    return {
        f"{APP}/README.md": README,
        f"{APP}/default/app.conf": conf(APP_CONF),
        f"{APP}/default/collections.conf": conf(COLLECTIONS),
        f"{APP}/default/data/ui/nav/default.xml": NAV,
        f"{APP}/default/data/ui/views/grantex_overview.xml": dashboard(),
        f"{APP}/default/eventtypes.conf": conf(eventtypes(source)),
        f"{APP}/default/macros.conf": conf(definitions),
        f"{APP}/default/props.conf": conf(props(source)),
        f"{APP}/default/savedsearches.conf": conf(saved_searches()),
        f"{APP}/default/tags.conf": conf(TAGS),
        f"{APP}/default/transforms.conf": conf(TRANSFORMS),
        f"{APP}/metadata/default.meta": META,
    }
