"""`provision datadog`: the pack's pipeline, metric, monitors and dashboard, by the vendor's own client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipelines.flags.provision import OfDatadog, program
from pipelines.flags.settings import Settings
from pipelines.packs import datadog as pack
from pipelines.provision import terraform
from pipelines.provision.plan import CannotProvision, Plan, Refused, Thing, plan_of, required, unreachable
from transforms.proxies import ProxyError
from transforms.secret import SecretError, read_by, shown

ABOUT = """
Sets up a Datadog account for the job: the log pipeline that makes attributes of an event, the metric that the
anomaly monitor needs, the monitors and the dashboard. It takes an application key beside the API key, of a
user who may do that. What is there already is left alone; what somebody made otherwise is shown. Exit code 0:
it is as shown, or was; 1: it is not; 2: wrong parameters.
"""
PROGRAM = program("datadog", ABOUT, "datadog_api_key datadog_site datadog_endpoint", asks=OfDatadog)
SECONDS = 30.0
# What the application key needs for what (Datadog's "Role permissions").
RIGHTS = {
    "pipeline": "logs_write_pipelines",
    "metric": "logs_generate_metrics",
    "monitor": "monitors_read and monitors_write",
    "dashboard": "dashboards_read and dashboards_write",
}
ALERTED = (
    "whom monitors tell: put a handle such as @slack-security into their messages; until then they are "
    "listed under Monitors"
)
FACETS = (
    "facets, which no API makes and no monitor needs: in Logs, make them of @id and @grantex.event_type, "
    ".grant_id, .agent_id, .principal_id and .scopes, so that the explorer and the dashboard offer them"
)
PIPELINE = """# The log pipeline. DD_API_KEY and DD_APP_KEY are in the environment; another site: DD_HOST=https://api...
curl --fail-with-body -X POST "${DD_HOST:-https://api.datadoghq.com}/api/v1/logs/config/pipelines" \\
  -H "DD-API-KEY: $DD_API_KEY" -H "DD-APPLICATION-KEY: $DD_APP_KEY" -H "Content-Type: application/json" \\
  --data @pipeline.json
"""
SIEM = (
    "two rules of Cloud SIEM (unknown agent, unusual scope), which costs extra: --print=true has their "
    "bodies in security_rules.json, each for POST /api/v2/security_monitoring/rules"
)


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    required(settings, "datadog_api_key", "datadog")
    if not settings["datadog_app_key"]:
        raise CannotProvision(
            "--datadog_app_key: is missing: beside the API key it takes an application key (Datadog: "
            f"Organization Settings > Application Keys) that may {', '.join(RIGHTS.values())}; --print=true "
            "needs none",
            bad=True,
        )
    account = Account(settings)
    things = [account.pipeline(), account.metric(), *account.monitors(), account.dashboard()]
    return plan_of(str(account), things, [ALERTED, FACETS, SIEM], settings["overwrite"])


def files(settings: Settings) -> Mapping[str, str]:
    """The bodies of requests, and Terraform that reads them."""
    bodies = {name.removeprefix("datadog/"): text for name, text in pack.files().items()}
    return {**bodies, "main.tf": terraform.DATADOG, "pipeline.sh": PIPELINE}


class Account:
    """An account, asked with both keys. Raises CannotProvision, also of every method."""

    def __init__(self, settings: Settings) -> None:
        from datadog_api_client import ApiClient
        from datadog_api_client.v1.api.authentication_api import AuthenticationApi

        self._site = settings["datadog_endpoint"] or settings["datadog_site"]
        self._keys = [f"--{name}" for name in ("datadog_api_key", "datadog_app_key")]
        self._client = ApiClient(_configuration(settings))
        with self._asking("", validating=True):
            AuthenticationApi(self._client).validate()

    def __str__(self) -> str:
        return f"Datadog at {self._site}"

    def pipeline(self) -> Thing:
        """The log pipeline, known by its name."""
        from datadog_api_client.v1.api.logs_pipelines_api import LogsPipelinesApi
        from datadog_api_client.v1.model.logs_pipeline import LogsPipeline

        api, wanted = LogsPipelinesApi(self._client), pack.pipeline()
        there = self._first("pipeline", lambda: api.list_logs_pipelines(), "name", wanted["name"])
        return self._thing(
            f"the log pipeline {wanted['name']}",
            wanted,
            there,
            lambda: api.create_logs_pipeline(LogsPipeline(**wanted)),
            lambda: api.update_logs_pipeline(str((there or {})["id"]), LogsPipeline(**wanted)),
            "pipeline",
        )

    def metric(self) -> Thing:
        """The metric made of logs, known by its id. What it computes cannot be changed."""
        from datadog_api_client.v2.api.logs_metrics_api import LogsMetricsApi
        from datadog_api_client.v2.model.logs_metric_create_request import LogsMetricCreateRequest

        api, wanted = LogsMetricsApi(self._client), pack.metric()
        with self._asking("metric"):
            there = _or_none(lambda: api.get_logs_metric(pack.METRIC))
        return self._thing(
            f"the metric {pack.METRIC}",
            wanted,
            there,
            lambda: api.create_logs_metric(LogsMetricCreateRequest(**wanted)),
            None,
            "metric",
            f"delete it and run this again: DELETE /api/v2/logs/config/metrics/{pack.METRIC}",
        )

    def monitors(self) -> Sequence[Thing]:
        """Each monitor, known by its name among those that begin as ours do."""
        from datadog_api_client.v1.api.monitors_api import MonitorsApi
        from datadog_api_client.v1.model.monitor import Monitor
        from datadog_api_client.v1.model.monitor_update_request import MonitorUpdateRequest

        api = MonitorsApi(self._client)
        with self._asking("monitor"):
            there = {each["name"]: each for each in _plain(api.list_monitors(name="Grantex"))}

        def thing(wanted: Mapping[str, Any]) -> Thing:
            found = there.get(wanted["name"])
            # A monitor's type cannot be changed.
            changed = {name: value for name, value in wanted.items() if name != "type"}
            return self._thing(
                f'the monitor "{wanted["name"]}"',
                wanted,
                found,
                lambda: api.create_monitor(Monitor(**wanted)),
                lambda: api.update_monitor((found or {})["id"], MonitorUpdateRequest(**changed)),
                "monitor",
            )

        return [thing(each) for each in pack.monitors()]

    def dashboard(self) -> Thing:
        """The dashboard, known by its title."""
        from datadog_api_client.v1.api.dashboards_api import DashboardsApi
        from datadog_api_client.v1.model.dashboard import Dashboard

        api, wanted = DashboardsApi(self._client), pack.dashboard()
        of_list = self._first(
            "dashboard", lambda: api.list_dashboards()["dashboards"], "title", wanted["title"]
        )
        with self._asking("dashboard"):
            there = _plain(api.get_dashboard(str(of_list["id"]))) if of_list else None
        return self._thing(
            f"the dashboard {wanted['title']}",
            wanted,
            there,
            lambda: api.create_dashboard(Dashboard(**wanted)),
            lambda: api.update_dashboard(str((there or {})["id"]), Dashboard(**wanted)),
            "dashboard",
        )

    def _first(self, kind: str, listed: Any, key: str, value: str) -> dict[str, Any] | None:
        with self._asking(kind):
            return next((each for each in _plain(listed()) if each.get(key) == value), None)

    def _thing(
        self,
        what: str,
        wanted: Mapping[str, Any],
        there: Any,
        make: Any,
        change: Any,
        kind: str,
        hint: str = "",
    ) -> Thing:
        def asked(deed: Any) -> Any:
            def do() -> None:
                with self._asking(kind):
                    deed()

            return deed and do

        return Thing(what, wanted, there, asked(make), asked(change), hint)

    @contextlib.contextmanager
    def _asking(self, kind: str, validating: bool = False) -> Iterator[None]:
        """Inside, Datadog is asked: what it refuses is a CannotProvision."""
        from datadog_api_client.exceptions import ApiException, OpenApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            raise self._refused(error, kind, validating) from None
        except (HTTPError, OSError) as error:
            raise unreachable(str(self), getattr(error, "reason", None) or error) from None
        except (OpenApiException, KeyError, TypeError, ValueError, AttributeError) as odd:
            raise CannotProvision(
                f"{self} answered with what is no answer of its API ({type(odd).__name__})"
            ) from None

    def _refused(self, error: Any, kind: str, validating: bool) -> CannotProvision:
        status, words = error.status, _words(error.body)
        if status in (401, 403) and validating:
            return CannotProvision(
                f"{self._keys[0]}: {self} refused the API key ({words}): is it one of this site's, "
                "--datadog_site?"
            )
        if status in (401, 403):
            return Refused(
                f"{self._keys[1]}: {self} refused it ({words}): it must be an application key, and one that "
                f"may {RIGHTS.get(kind, 'do this')}"
            )
        if status == 429:
            return CannotProvision(f"{self} has had too many requests; try again in a minute ({words})")
        return Refused(f"{self} answered {status}: {words}")


def _configuration(settings: Settings) -> Any:
    """Raises CannotProvision."""
    from datadog_api_client import Configuration

    way_out, endpoint = settings.way_out, settings["datadog_endpoint"]
    root = (endpoint or f"https://api.{settings['datadog_site']}").rstrip("/")
    try:
        keys = {
            "apiKeyAuth": read_by(way_out, settings["datadog_api_key"]),
            "appKeyAuth": read_by(way_out, settings["datadog_app_key"]),
        }
        proxy = way_out.proxy(root)
        made = Configuration(host=root, api_key=keys, request_timeout=SECONDS)
        made.ssl_ca_cert = way_out.bundle()
        made.cert_file, made.key_file = way_out.client_certificate, way_out.client_key
        if proxy is not None:
            made.proxy, made.proxy_headers = proxy.url, proxy.headers()
    except (SecretError, ProxyError, OSError) as error:
        raise CannotProvision(shown(str(error)), bad=True) from None
    return made


def _or_none(get: Any) -> Any:
    """What is there, or None."""
    from datadog_api_client.exceptions import NotFoundException

    try:
        return _plain(get())
    except NotFoundException:
        return None


def _plain(found: Any) -> Any:
    """The client's models as dicts and lists."""
    if isinstance(found, list):
        return [_plain(each) for each in found]
    if hasattr(found, "to_dict"):
        return found.to_dict()
    return _plain(found.value) if hasattr(found, "value") else found  # a list with a name of its own


def _words(body: Any) -> str:
    """What Datadog says in a refusal: {"errors": ["..."]}, or objects with title and detail."""
    try:
        told = body if isinstance(body, Mapping) else json.loads(body)
        errors: Sequence[Any] = told["errors"]
        texts = [each if isinstance(each, str) else each.get("detail") or each["title"] for each in errors]
        return shown("; ".join(texts)) or "without a word"
    except (ValueError, TypeError, KeyError, AttributeError):
        return "without a word of Datadog's"
