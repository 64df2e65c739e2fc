"""`provision splunk`: index, HEC and its token, and the app's searches, alerts, aliases and dashboard.

All of it through the management port, by splunk-sdk. What is made there has the texts and names that the
packs' app has, so that it does not matter which of the two ways they came.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from pipelines.flags.provision import OfSplunk, program
from pipelines.flags.settings import Settings
from pipelines.packs import splunk as pack
from pipelines.packs.retention import days, framework
from pipelines.provision.plan import CannotProvision, Plan, Refused, Thing, plan_of, required
from pipelines.provision.splunk_service import HEC_APP, Found, SplunkService
from transforms.secret import Secret, SecretError, read_by, remember
from transforms.secret_store import Place, place
from transforms.write.splunk.indexes import Indexes

ABOUT = """
Sets up a Splunk for the job: the indexes of --splunk_index and --splunk_index_by_type, the HTTP Event
Collector with a token for it (with indexer acknowledgement when --splunk_acknowledge=true), and the app
grantex_beam with its searches, alerts, field aliases and dashboard. The new token goes where
--splunk_hec_token says: file:PATH, a secret of Google Secret Manager (secret:projects/P/secrets/S) or of AWS
(aws-secret:NAME); a token that lies there already is the one that is made. What is there already is left
alone; what somebody made otherwise is shown. Exit code 0: it is as shown, or was; 1: it is not; 2: wrong
parameters.
"""
USES = "splunk_hec_url splunk_index splunk_index_by_type splunk_source splunk_acknowledge"
PROGRAM = program("splunk", ABOUT, USES, ["splunk_hec_token"], OfSplunk)
NAME = "grantex"  # of the token
MANAGEMENT_PORT = 8089
# savedsearches.conf's names for what the management port calls otherwise (REST reference, "saved/searches").
AT_THE_PORT = {
    "enableSched": "is_scheduled",
    "counttype": "alert_type",
    "relation": "alert_comparator",
    "quantity": "alert_threshold",
}
FIRST_FILL = (
    'are there older events? Run the report "Grantex - Owners of grants, first fill" once, so that alerts '
    "know the agents of older grants"
)
ALERTED = (
    "whom alerts tell: give each an action (mail, webhook) in Splunk; until then they are listed under "
    "Activity > Triggered Alerts"
)


class Stanza(NamedTuple):
    """One thing of the app. path: of its collection at the management port. everywhere: searches of other
    apps find it as well."""

    what: str
    path: str
    name: str
    settings: Mapping[str, str]
    everywhere: bool = False


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    _need(settings)
    service = SplunkService(_root(settings), settings)
    head, by_hand = f"{service}, as {service.user}", [FIRST_FILL, ALERTED]
    if service.is_cloud:
        things, by_hand = [], [*_by_acs(settings), *by_hand]
    else:
        indexes = [_index(settings, service, name) for name in indexes_of(settings)]
        things = [*indexes, *_hec(settings, service)]
    if "main" in indexes_of(settings):
        by_hand.append(
            "main is everybody's: --splunk_index=grantex would give the events an index of their own"
        )
    return plan_of(head, [*things, *_app(settings, service)], by_hand, settings["overwrite"])


def _need(settings: Settings) -> None:
    """Raises CannotProvision for what is missing."""
    required(settings, "splunk_hec_url", "splunk")
    if not settings["splunk_management_token"] and not (
        settings["splunk_user"] and settings["splunk_password"]
    ):
        raise CannotProvision(
            "--splunk_management_token: is missing (Splunk: Settings > Tokens), or --splunk_user and "
            "--splunk_password, of a user who may make indexes, tokens and apps; --print=true needs none",
            bad=True,
        )


def _root(settings: Settings) -> str:
    if given := settings["splunk_management_url"]:
        return str(given)
    host = urlsplit(settings["splunk_hec_url"]).hostname or ""
    return f"https://{f'[{host}]' if ':' in host else host}:{MANAGEMENT_PORT}"


# The index and HEC


def indexes_of(settings: Settings) -> Sequence[str]:
    """Those that events go to, or whatever names none in a request: the usual one is always among them."""
    usual = settings["splunk_index"]
    return tuple(dict.fromkeys([usual, *Indexes(usual, settings["splunk_index_by_type"]).names]))


def _index(settings: Settings, service: SplunkService, name: str) -> Thing:
    wanted = {} if name == "main" else _kept(settings)
    return service.thing(f"the index {name}", Found("data/indexes", name, app="search"), wanted)


def _kept(settings: Settings) -> Mapping[str, str]:
    """For how long an index of ours keeps events, when that is asked for."""
    if not settings["retention"]:
        return {}
    return {"frozenTimePeriodInSecs": str(days(framework(settings["retention"]).advised) * 86_400)}


def _hec(settings: Settings, service: SplunkService) -> Iterator[Thing]:
    """The collector itself, which is off in a new Splunk, the token, and its value where the job reads it."""
    everybody = Found("data/inputs/http", "http", app=HEC_APP)
    is_on = (service.found(everybody, ("disabled",)) or {}).get("disabled") == "0"
    on = partial(service.change, everybody, {"disabled": "0"})
    yield Thing("the HTTP Event Collector, switched on", {}, {} if is_on else None, on)
    token = Token(settings, service)
    yield token.thing()
    yield Thing(f"the token's value in {token.secret}", {}, None if token.store else {}, token.keep)


def _of_token(settings: Settings) -> dict[str, str]:
    """The HEC token's settings, but for its value."""
    indexes = indexes_of(settings)
    return {
        "index": indexes[0],
        "indexes": ",".join(indexes),
        "useACK": str(int(settings["splunk_acknowledge"])),
        "disabled": "0",
    }


class Token:
    """The HEC token, and where its value lies. store: the place that is still to be filled, or None."""

    def __init__(self, settings: Settings, service: SplunkService) -> None:
        self.secret: Secret = settings["splunk_hec_token"]
        self._at, self._service = Found("data/inputs/http", NAME, app=HEC_APP), service
        self._settings = settings
        self.store, self._value = self._look()

    def _look(self) -> tuple[Place | None, str]:
        """The place to be filled, or what lies there."""
        way_out = self._settings.way_out
        unfit: SecretError | None = None
        try:
            store = place(self.secret, way_out)
            if store.is_free():
                return store, ""
        except SecretError as error:  # nothing can be put into the environment, say
            unfit = error
        try:
            return None, read_by(way_out, self.secret)
        except SecretError as error:
            raise CannotProvision(f"--splunk_hec_token: {unfit or error}", bad=True) from None

    def thing(self) -> Thing:
        wanted = _of_token(self._settings)
        found = self._service.found(self._at, (*wanted, "token"))
        how = "with" if self._settings["splunk_acknowledge"] else "without"
        what = f"the HEC token {NAME}, {how} acknowledgement"
        make = partial(self._make, wanted)
        if found is None:
            return Thing(what, wanted, None, make)
        value = found.pop("token", "")
        remember(value)
        allowed = found["indexes"].split(",") if found.get("indexes") else []
        if not allowed or {*indexes_of(self._settings)} <= {*allowed}:  # none are all
            found["indexes"] = wanted["indexes"]
        if not self._value or value == self._value:
            return Thing(what, wanted, found, make, partial(self._service.change, self._at, wanted))
        return Thing(
            what,
            {**wanted, "value": f"that of {self.secret}"},
            {**found, "value": "another one"},
            make,
            by_hand="nothing is written over: give another place with --splunk_hec_token, or put Splunk's "
            f"value into {self.secret} yourself",
        )

    def _make(self, wanted: Mapping[str, str]) -> None:
        if self.store:
            self.store.prepare()
        self._service.make(self._at, {**wanted, **({"token": self._value} if self._value else {})})

    def keep(self) -> None:
        """Put the value that Splunk has where the job reads it. Raises SecretError."""
        found = self._service.found(self._at, ("token",)) or {}
        if not (value := found.get("token", "")):
            raise Refused(f"there is no token {NAME}, or Splunk does not show its value to this user")
        remember(value)
        if self.store:
            self.store.put(value)


def _by_acs(settings: Settings) -> Sequence[str]:
    """On Splunk Cloud, indexes and tokens are made by its Admin Config Service alone."""
    indexes = indexes_of(settings)
    ack = " --use-ack" if settings["splunk_acknowledge"] else ""
    return (
        *(f"the index: acs indexes create --name {index}" for index in indexes),
        f"the token: acs hec-token create --name {NAME} --default-index {indexes[0]} "
        f"--allowed-indexes {','.join(indexes)}"
        f"{ack}; then put its value where {settings['splunk_hec_token']} says",
    )


# The app


def _app(settings: Settings, service: SplunkService) -> Iterator[Thing]:
    """The app, and each of its stanzas; none of them is looked for in an app that is not there."""
    at = Found("apps/local", pack.APP, app="system")
    about = {"label": "Grantex", "version": pack.VERSION, "visible": "1", "template": "barebones"}
    there = service.found(at, ("label",))
    yield Thing(f"the app {pack.APP}", {}, None if there is None else {}, partial(service.make, at, about))
    for each in stanzas(indexes_of(settings), settings["splunk_source"]):
        found = Found(each.path, each.name, app=pack.APP, everywhere=each.everywhere)
        yield service.thing(each.what, found, each.settings, is_there=there is not None)


def stanzas(indexes: Sequence[str], source: str) -> Iterator[Stanza]:
    """What the app consists of, in the order in which one needs another."""
    for name, columns in pack.COLLECTIONS.items():
        yield Stanza(f"the KV store {name}", "storage/collections/config", name, columns, True)
    for name, lookup in pack.TRANSFORMS.items():
        yield Stanza(f"the lookup {name}", "data/transforms/lookups", name, lookup, True)
    for name, text in pack.macros(_searched(indexes, source), source).items():
        yield Stanza(f"the macro {name}", "configs/conf-macros", name, {"definition": text}, True)
    for name, aliases in pack.props(source).items():
        yield Stanza(f"the field aliases of {name}", "configs/conf-props", name, aliases, True)
    for name, kind in pack.eventtypes(source).items():
        yield Stanza(f"the event type {name}", "configs/conf-eventtypes", name, kind, True)
    for name, tags in pack.TAGS.items():
        yield Stanza(f"the tags of {name}", "configs/conf-tags", name, tags, True)
    for name, search in pack.saved_searches().items():
        what = "the alert" if "alert.track" in search else "the search"
        named = {AT_THE_PORT.get(key, key): value for key, value in search.items()}
        yield Stanza(f'{what} "{name}"', "saved/searches", name, named)
    view = {"eai:data": pack.dashboard()}
    yield Stanza("the dashboard grantex_overview", "data/ui/views", "grantex_overview", view)


def _searched(indexes: Sequence[str], source: str) -> Sequence[str] | None:
    """Where searches look; None as the pack's app does by itself, which has both usual names of the index."""
    usual = source == pack.SOURCE and {*indexes} <= {"main", "grantex"}
    return None if usual else indexes


# For somebody else


def files(settings: Settings) -> Mapping[str, str]:
    """What a Splunk administrator installs: two .conf files and the app."""
    indexes, source = indexes_of(settings), settings["splunk_source"]
    paths = {"homePath": "db", "coldPath": "colddb", "thawedPath": "thaweddb"}
    made = {
        index: {**{name: f"$SPLUNK_DB/{index}/{place}" for name, place in paths.items()}, **_kept(settings)}
        for index in indexes
        if index != "main"
    }
    token = {"token": "MAKE_ONE_WITH_uuidgen", **_of_token(settings)}
    hec = {"http": {"disabled": "0"}, f"http://{NAME}": token}
    found = {"indexes.conf": pack.conf(made)} if made else {}
    return {**found, "inputs.conf": pack.conf(hec), **pack.app(_searched(indexes, source), source)}
