"""`provision feed`: registers the webhook that posts to our receiver, and puts its secret where we read it.

The service shows a webhook's secret once, when it is made, and never again; it has no way to change one. So
the place is tried before, nothing that lies there is written over, and no webhook is ever deleted (its
delivery ledger would go with it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import httpx
import msgspec

from pipelines.flags.destinations import feed_settings
from pipelines.flags.provision import program
from pipelines.flags.settings import Settings
from pipelines.provision.plan import CannotProvision, Plan, required, unreachable
from transforms import event_types
from transforms.feed.ledger import WEBHOOKS, Ledger, LedgerError, Webhook
from transforms.feed.reconnect import who_answered
from transforms.feed.request import FeedSettings, open_client, read_key
from transforms.secret import FileSecret, Secret, SecretError, remember, shown
from transforms.secret_store import Place, place
from transforms.structs import ready
from transforms.way_out import WayOut

ABOUT = """
Registers the webhook by which the service posts events to --webhook_url, for --feed_types or every type that
the service has webhooks for, and puts its secret where --webhook_secret says: file:PATH, a secret of Google
Secret Manager (secret:projects/P/secrets/S) or of AWS (aws-secret:NAME). Nothing that lies there is written
over, a webhook that posts there already is left alone, and none is deleted. Exit code 0: it is registered, or
was; 1: it is not; 2: wrong parameters.
"""
PROGRAM = program("feed", ABOUT, "feed_url feed_api_key feed_types webhook_url", ["webhook_secret"])
LONGEST_URL = 2048  # characters, the service's own limit
SECONDS = 15.0
_TYPE = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+)+")


@ready
class _Made(msgspec.Struct):
    id: str
    url: str
    events: list[str]
    secret: str = ""


@ready
class _Refusal(msgspec.Struct):
    message: str = ""
    code: str = ""


def plan(settings: Settings) -> Plan:
    """What is to be done. Raises CannotProvision."""
    url, places = required(settings, "webhook_url", "feed"), required(settings, "webhook_secret", "feed")
    stores = [(each, _place(each, settings.way_out)) for each in places]
    if len(url) > LONGEST_URL:
        raise CannotProvision(f"--webhook_url: the service takes {LONGEST_URL} characters at most", bad=True)
    service = Service(feed_settings(settings))
    wanted = settings.feed_types or tuple(sorted(event_types.KNOWN))
    found = [each for each in service.webhooks() if each.url.rstrip("/") == url.rstrip("/")]
    if found:
        return _nothing_to_do(found, stores, wanted)
    free, store = _first_free(stores)
    lines = [
        f"a webhook is to be registered at {service.root}: it will post to {url}",
        f"asked for are {_types(wanted)}; should the service not take them all, those that it takes",
        f"its secret goes to {free}, which the job reads as --webhook_secret; nothing else is changed",
    ]
    return Plan(lines, lambda: _register(service, url, wanted, free, store))


Stores: TypeAlias = Sequence[tuple[Secret, Place]]


def _nothing_to_do(found: Sequence[Webhook], stores: Stores, wanted: Sequence[str]) -> Plan:
    lines = [f"{each.id} posts there since {each.createdAt}, for {_types(each.events)}" for each in found]
    lines += _uncovered([kind for kind in wanted if not any(each.covers(kind) for each in found)])
    if all(store.is_free() for _, store in stores):
        raise CannotProvision(
            f"{lines[0]}; but its secret, which was shown once when it was made, is not in {stores[0][0]}: "
            "put it there, or register another webhook by adding something to --webhook_url, such as ?second"
        )
    return Plan([*lines, "nothing is to be done"], None)


def _first_free(stores: Stores) -> tuple[Secret, Place]:
    for each in stores:
        if each[1].is_free():
            return each
    names = ", ".join(str(secret) for secret, _ in stores)
    raise CannotProvision(
        f"--webhook_secret: nothing is written over, and there is a secret in {names} already; give a "
        "further one, such as --webhook_secret=file:PATH with a file that does not exist"
    )


def _place(secret: Secret, way_out: WayOut) -> Place:
    try:
        return place(secret, way_out)
    except SecretError as error:
        raise CannotProvision(f"--webhook_secret: {error}", bad=True) from None


def _register(service: Service, url: str, wanted: Sequence[str], free: Secret, store: Place) -> Iterator[str]:
    store.prepare()
    made = service.create(url, wanted)
    yield f"{made.id} is registered: it posts to {made.url}, for {_types(made.events)}"
    yield from _uncovered([kind for kind in wanted if kind not in made.events])
    try:
        store.put(made.secret)
    except SecretError as error:
        rescue = FileSecret(f"./{re.sub('[^A-Za-z0-9_-]', '_', made.id)}.secret")
        place(rescue).put(made.secret)
        path = Path(rescue.path).resolve()
        raise CannotProvision(
            f"{error}. The secret, which is not shown again, is in {path}: put it where --webhook_secret says"
        ) from None
    yield f"its secret is in {free}"


def _uncovered(left: Sequence[str]) -> list[str]:
    return [f"not covered, and had from the streams only: {_types(left)}"] if left else []


def _types(types: Sequence[str]) -> str:
    return f"{len(types)} types ({', '.join(types)})" if len(types) != 1 else f"the type {types[0]}"


class Service:
    """The service's webhooks, asked with the feed's key."""

    def __init__(self, feed: FeedSettings) -> None:
        self.root = feed.root
        self._feed = feed

    def webhooks(self) -> Sequence[Webhook]:
        """Those of this account. Raises CannotProvision."""
        reader = Ledger(self._feed)
        try:
            return reader.webhooks()
        except LedgerError as error:
            raise CannotProvision(str(error)) from None
        finally:
            reader.close()

    def create(self, url: str, types: Sequence[str]) -> _Made:
        """A new one, for as many of `types` as the service takes. Raises CannotProvision."""
        answer = self._post(url, types)
        if answer.status_code == 400 and (valid := _valid_types(_said(answer).message)):
            # What the service names and we do not know is as good: nothing was asked for in particular.
            taken = valid if set(types) >= event_types.KNOWN else [kind for kind in types if kind in valid]
            if not taken:
                raise CannotProvision(
                    f"the service has webhooks for none of --feed_types; for {_types(valid)}"
                )
            answer = self._post(url, taken)
        if answer.status_code not in (200, 201):
            raise self._refused(answer)
        try:
            made = msgspec.json.decode(answer.content, type=_Made)
        except msgspec.MsgspecError:
            status = answer.status_code
            raise CannotProvision(
                f"{self.root} answered {status} with what is no answer of the service"
            ) from None
        remember(made.secret)
        if not made.secret:
            raise CannotProvision(f"{made.id} is registered, but the service sent no secret with it")
        return made

    def _post(self, url: str, types: Sequence[str]) -> httpx.Response:
        try:
            headers = {"Authorization": f"Bearer {read_key(self._feed)}", "Accept": "application/json"}
            with open_client(self._feed) as client:
                content = {"url": url, "events": list(types)}
                return client.post(self.root + WEBHOOKS, headers=headers, json=content, timeout=SECONDS)
        except SecretError as error:
            raise CannotProvision(f"--feed_api_key: {error}") from None
        except (httpx.HTTPError, OSError) as error:
            raise unreachable(self.root, error) from None

    def _refused(self, answer: httpx.Response) -> CannotProvision:
        said, status = _said(answer), answer.status_code
        words = shown(said.message) or f"status {status}"
        if in_between := who_answered(answer.headers, answer.content):
            return CannotProvision(f"something in between answered {status} ({in_between})")
        if status == 402 or said.code == "PLAN_LIMIT_EXCEEDED":
            return CannotProvision(f"the account's plan has no room for another webhook: {words}")
        if status in (401, 403):
            return CannotProvision(f"--feed_api_key: {self.root} refused the key ({words})")
        if status == 429:
            return CannotProvision(f"{self.root} has had too many requests; try again in a minute ({words})")
        return CannotProvision(f"{self.root} answered {status}: {words}")


def _said(answer: httpx.Response) -> _Refusal:
    try:
        return msgspec.json.decode(answer.content, type=_Refusal)
    except msgspec.MsgspecError:
        return _Refusal()


def _valid_types(message: str) -> list[str]:
    """The types that a refusal names: "Invalid event types: a.b. Valid: grant.created, token.issued"."""
    _, found, rest = message.rpartition("Valid")
    return _TYPE.findall(rest) if found else []
