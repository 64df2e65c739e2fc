"""What reading the feed needs, tried when a person asks: key, plan, clock, webhooks, the way of a WebSocket.

No stream is opened but a WebSocket, where one is wanted, and that is held for as long as the service needs to
count its slot (feed.md of the service: one that is closed in its first milliseconds may leak it).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx
import msgspec

from transforms import event_types
from transforms.clock import Clock, SystemClock
from transforms.feed import reconnect
from transforms.feed.account import not_reached, try_key
from transforms.feed.ledger import Ledger, LedgerError, Stopped, Webhook, choose
from transforms.feed.reconnect import Ending, EndingKind
from transforms.feed.request import MIN_STREAM_SECONDS, WEBSOCKET, FeedSettings, Wire, open_client, read_key
from transforms.preflight import Finding
from transforms.secret import SecretError, shown
from transforms.write.answer import decoded

if TYPE_CHECKING:
    from transforms.feed.websocket import WebSocket

# Whom a wrong clock hurts: webhooks are refused when they are older or newer than 300 s, S3's requests by
# 15 minutes; a minute is what NTP never lets happen.
CLOCK_WARNS, CLOCK_FAILS = 60.0, 300.0  # seconds
LEAST_LEFT = 5  # of the requests a minute, a fifth is what our reconnects want to find
PROVISION = "`grantex-beam provision feed`"


class _Me(msgspec.Struct):
    developerId: str
    plan: str | None = None
    mode: str | None = None


_me = msgspec.json.Decoder(_Me).decode


def check_key(settings: FeedSettings, clock: Clock | None = None) -> Iterator[Finding]:
    """The key, whose it is, what its plan allows, and how far our clock is from the service's."""
    answers: list[tuple[httpx.Headers, bytes]] = []
    asked = try_key(settings, lambda headers, body: answers.append((headers, body)))
    for found in asked:
        yield replace(found, note=_whose(*answers[0])) if answers else found
    for headers, _ in answers:
        yield from _rate(headers)
        yield from _clock(headers, clock or SystemClock())


def _whose(headers: Mapping[str, str], body: bytes) -> str:
    me = decoded(_me, body)
    if me is None:
        return ""
    plan, mode = f"plan {me.plan}" if me.plan else "", f"{me.mode} mode" if me.mode else ""
    return ", ".join(shown(each, 80) for each in (f"developer {me.developerId}", plan, mode) if each)


def _rate(headers: Mapping[str, str]) -> Iterator[Finding]:
    what = "requests a minute"
    with contextlib.suppress(ValueError, KeyError):
        limit, left = (int(headers[f"x-ratelimit-{name}"]) for name in ("limit", "remaining"))
        note = f"{limit}, of which {left} are left in this one"
        if left * LEAST_LEFT > limit:
            yield Finding(what, True, note=note)
            return
        yield Finding(
            what,
            True,
            f"Of {limit} only {left} are left in this minute, for whatever uses this account's keys, and our "
            "reconnects need some: find who asks so much, or take a larger plan.",
        )


def _clock(headers: Mapping[str, str], clock: Clock) -> Iterator[Finding]:
    with contextlib.suppress(ValueError, TypeError, IndexError, OverflowError):
        behind = parsedate_to_datetime(headers.get("date", "")).timestamp() - clock.now()
        far = abs(behind)
        cause = (
            f"It is {far:.0f} s {'behind' if behind > 0 else 'ahead of'} the service's. Webhooks are refused "
            "when that is more than 300 s, and S3 refuses us from 15 minutes on: set the clock (NTP)."
        )
        passed = far <= CLOCK_FAILS
        yield Finding("this machine's clock", passed, cause if far > CLOCK_WARNS else "")


def check_webhooks(
    settings: FeedSettings, ledger_webhook: str = "", webhook_url: str = ""
) -> Iterator[Finding]:
    """Which webhooks the account has, and of which types its delivery ledger can tell.

    ledger_webhook: as --ledger_webhook, "" for none. webhook_url: where one is expected to post, or "".
    """
    what, needed = "webhooks", bool(ledger_webhook or webhook_url)
    stop = threading.Event()
    reader = Ledger(settings, stop=stop, tries=1, on_wait=lambda seconds: stop.set())
    try:
        webhooks = reader.webhooks()
    except (LedgerError, Stopped) as error:
        why = shown(str(error)) or "the account's requests of this minute are used up: try again in another"
        yield Finding(what, None if needed else True, _sentence(why))
        return
    finally:
        reader.close()
    yield _registered(settings, webhooks, webhook_url)
    if ledger_webhook:
        yield _ledger(settings, webhooks, ledger_webhook, webhook_url)


def _registered(settings: FeedSettings, webhooks: Sequence[Webhook], webhook_url: str) -> Finding:
    what = "webhooks"
    here = [each for each in webhooks if each.url.rstrip("/") == webhook_url.rstrip("/")]
    if webhook_url and not here:
        cause = f"None posts to --webhook_url: register it with {PROVISION}."
        return Finding(what, True, cause, _names(webhooks))
    if not webhooks:
        note = f"none, so nothing makes up for an outage of this machine; {PROVISION} registers one"
        return Finding(what, True, note=note)
    lacking = here[0].lacks(settings.types) if here else []
    return Finding(what, True, note=_names(webhooks) + _but(lacking, "none is sent of"))


def _ledger(settings: FeedSettings, webhooks: Sequence[Webhook], wanted: str, webhook_url: str) -> Finding:
    what = "the delivery ledger"
    try:
        chosen = choose(webhooks, wanted, webhook_url)
    except LedgerError as error:
        return Finding(what, False, _sentence(f"{error}{'; correct --ledger_webhook' if webhooks else ''}"))
    lacking = chosen.lacks(settings.types)
    asked = settings.types or sorted(event_types.KNOWN)
    covered = f"of {chosen.id}, which has rows of {len(asked) - len(lacking)} of {len(asked)} types"
    return Finding(what, True, note=covered + _but(lacking, "nothing is proven of"))


def _names(webhooks: Sequence[Webhook]) -> str:
    each = [f"{webhook.id} ({len(webhook.events)} types)" for webhook in webhooks[:5]]
    more = f" and {len(webhooks) - 5} more" if len(webhooks) > 5 else ""
    return f"{', '.join(each)}{more}" if each else "none"


def _but(types: Sequence[str], what: str) -> str:
    return f"; {what} {', '.join(types)}" if types else ""


def check_socket(settings: FeedSettings, clock: Clock | None = None) -> Iterator[Finding]:
    """A WebSocket to the service, through whatever stands in between, held for two seconds. What comes by it
    meanwhile is read and let go: it comes by every other stream as well."""
    from transforms.feed.websocket import WebSocket

    what, clock = "the upgrade", clock or SystemClock()
    # Its first ping is what ends the wait for another byte.
    settings = replace(settings, transport=WEBSOCKET, types=(), ping_interval=MIN_STREAM_SECONDS)
    transport = WebSocket(settings, clock)
    wire = Wire(clock, headers_within=settings.account_timeout)
    ending: Ending | None = None
    try:
        ending = _held(settings, transport, wire, clock)
    except SecretError as error:
        yield Finding(what, False, f"{error}.")
    except Exception as error:  # noqa: BLE001 - whatever an answer causes
        yield not_reached(settings, what, error)
    else:
        yield _upgraded(what, ending)
    finally:
        if wire.lived and (ending is None or ending.kind is not EndingKind.STATUS):
            wire.hold()  # it may have a slot
        wire.release()


def _held(settings: FeedSettings, transport: WebSocket, wire: Wire, clock: Clock) -> Ending | None:
    """How it ended by itself; None when it was held until we let go."""
    url, headers = transport.request(read_key(settings))
    extensions = {"trace": wire.trace, "sni_hostname": settings.host.rstrip(".")}
    with (
        open_client(settings) as client,
        client.stream(
            "GET", url, headers=headers, timeout=settings.account_timeout, extensions=extensions
        ) as response,
    ):
        if refused := transport.refusal(response, clock.now()):
            return refused
        wire.headers_came()
        until = clock.monotonic() + MIN_STREAM_SECONDS
        for _ in transport.frames(response):
            if clock.monotonic() >= until:
                transport.let_go()
                return None
    return transport.ending


def _upgraded(what: str, ending: Ending | None) -> Finding:
    if ending is None:
        return Finding(what, True, note=f"held for {MIN_STREAM_SECONDS:.0f} s")
    why = reconnect.why(ending)
    if ending.code == reconnect.TOO_MANY:  # of ours, perhaps: the way itself is open
        return Finding(what, True, f"It passes, and {why}.")
    needs_you = ending.status in (401, 403, 404, 426) or bool(ending.reason)
    return Finding(what, False if needs_you else None, _sentence(why))


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
