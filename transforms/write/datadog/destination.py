"""Datadog: events to its logs intake, at least once, found again by the attribute `id`."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal
from urllib.parse import urlsplit

from transforms import readers
from transforms.batch import BatchPolicy, batches
from transforms.clock import Clock, SystemClock
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.proxies import host_and_port
from transforms.readers import address_fault
from transforms.secret import Secret, shown
from transforms.setting import setting, shared
from transforms.way_out import USUAL, WayOut
from transforms.write.answer import fields
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Outcome, Writer, finding
from transforms.write.datadog import reply as datadog_sites
from transforms.write.datadog.log import MAX_ID, MAX_LOG, LogForm
from transforms.write.datadog.reply import BAD_REQUEST, is_datadogs, outcome_of
from transforms.write.failure import asked
from transforms.write.over_http.connection import Credential, HttpConnection, Reply, gzip, user_agent

log = logging.getLogger("grantex.write")

PATH = "/api/v2/logs"
VALIDATE_PATH = "/api/v1/validate"
REQUEST_IDS = ("dd-request-id", "x-request-id")  # headers of an answer
# Limits of a request, from Datadog's API reference ("Send logs"); 5 MB are counted before compression.
MAX_EVENTS = 1000
MAX_BYTES = 5_000_000
# 500 events of the feed are 250 kB and take Datadog some 100 ms; nine tenths of the limit in bytes.
POLICY = BatchPolicy(max_events=500, max_bytes=4_500_000, max_age=2.0)
TOO_OLD = "too_old: created more than 18 h ago, which Datadog would drop"
TOO_LONG = f"too_large: its id has more than {MAX_ID} characters, for which no log has room"
# Datadog's "Getting started with tags": a letter first, 200 characters, no colon at the end. What else there
# may be it turns into "_", so that nobody would find it.
TAG = re.compile(r"[^\W\d_][\w:./-]{0,198}[\w./-]")
OURS = ("type", "grantex_late", "grantex_early", "grantex_cut")


def site_name(text: str) -> str:
    """One of Datadog's sites."""
    if fault := datadog_sites.fault(text):
        raise ValueError(fault)
    return text


def tag_names(text: str) -> tuple[str, ...]:
    """KEY:VALUE,KEY:VALUE."""
    found = readers.names(text)
    for tag in found:
        if not TAG.fullmatch(tag):
            raise ValueError(
                "must be KEY:VALUE, at most 200 letters, digits, _, -, :, . and /, a letter first, as "
                "Datadog's tags are"
            )
        if tag.partition(":")[0] in OURS:
            raise ValueError(f"must not have the key {tag.partition(':')[0]}, which each event has already")
    return found


@dataclass(frozen=True)
class Datadog(Destination):
    """Settings of Datadog's logs intake.

    api_key: a reference to the API key; read on the worker, and again when Datadog refuses it.
    site: of the account, one of `datadog_sites.SITES`; its intake is "https://http-intake.logs.<site>".
    endpoint: root of a proxy or of a practice server to use instead of the site's intake.
    source, host, service: Datadog's `ddsource`, `hostname` and `service` of each event. A log's source
        chooses the pipelines that read it; its host, whose tags it gets.
    tags: "key:value" texts on each event, beside `type:<event type>`.
    compression: of requests.
    way_out: the proxy, the authorities to trust beside the usual ones, the certificate to show.
    too_old: Datadog drops what is older than 18 h. "tag" sends it with the tag `grantex_late:true` and the
        time of its arrival, "dead_letter" does not send it.

    Raises ValueError for a site that is none and for a policy beyond what the intake takes.
    """

    api_key: Secret = setting("API key.", example="env:DATADOG_API_KEY")
    site: str = setting("Site of the account.", "datadoghq.com", read=site_name, target=True)
    endpoint: str | None = setting(
        "Root of a proxy to use instead of the site's intake.",
        None,
        url=PATH,
        example="https://proxy.example.com",
    )
    service: str = setting("Datadog's service of each event.", "grantex")
    tags: tuple[str, ...] = setting(
        "Tags of each event, beside its type.",
        (),
        read=tag_names,
        placeholder="KEY:VALUE,KEY:VALUE",
        example="env:production,team:identity",
    )
    too_old: Literal["tag", "dead_letter"] = setting(
        "What Datadog would drop as older than 18 h: sent with a tag and no time, or a dead letter.", "tag"
    )
    compression: Literal["gzip", "none"] = shared("http_compression", "gzip")
    way_out: WayOut = shared("way_out", USUAL)
    policy: BatchPolicy = batches(
        POLICY, "in one request", compressed=True, most_events=MAX_EVENTS, most_bytes=MAX_BYTES
    )
    # One request is encoded and packed while another waits for its answer.
    concurrency: int = 2
    source: str = setting("Datadog's source (ddsource) of each event.", "grantex")
    host: str = setting("Datadog's host (hostname) of each event.", "grantex-auth-service")
    asked: Asked = asked_for()

    name: ClassVar[str] = "datadog"
    title: ClassVar[str] = "Datadog"

    def __post_init__(self) -> None:
        if fault := address_fault(self.endpoint):
            raise ValueError(f"endpoint {fault}")
        if not self.endpoint and (fault := datadog_sites.fault(self.site)):
            raise ValueError(f"site {self.site!r} {fault}")
        if self.policy.max_events > MAX_EVENTS or self.policy.max_bytes > MAX_BYTES:
            raise ValueError(f"Datadog takes {MAX_EVENTS} events and {MAX_BYTES} bytes a request at most")
        # Text around the raw bytes, made once; a frozen dataclass lets itself be written only like this.
        object.__setattr__(self, "_form", LogForm(self.source, self.host, self.service, self.tags))

    def faults(self) -> Iterator[tuple[str, str]]:
        """A site beside an endpoint would be passed over in silence."""
        if self.endpoint and self.site != type(self).site:
            yield "site", "has no meaning beside {endpoint}; leave out one of them"

    def size(self, event: Event) -> int:
        """At least the bytes of `event` in an uncompressed request, so that a batch is never too large."""
        form: LogForm = self._form  # type: ignore[attr-defined]
        return form.size(event)

    def encode(self, events: Sequence[Event], now: float) -> bytes:
        """The uncompressed body of a request that is sent at `now` (seconds since the epoch)."""
        form: LogForm = self._form  # type: ignore[attr-defined]
        return form.encode(events, now)

    def too_old_at(self, events: Sequence[Event], now: float) -> list[int]:
        """The indexes of events that Datadog would drop at `now` (seconds since the epoch)."""
        form: LogForm = self._form  # type: ignore[attr-defined]
        return form.too_old(events, now)

    def target(self) -> str:
        """The service's name there, and where the intake is."""
        return f"service {self.service} at {self.endpoint or self.site}"

    def check(self) -> Iterator[Finding]:
        """Ask about the key, and send the intake a request with no log in it. What the intake takes needs no
        other word for it: the host that is asked about keys may be out of reach."""
        with contextlib.closing(self.open()) as writer:
            intake = writer.check_intake()
            for found in writer.preflight():
                yield (
                    replace(found, passed=True, cause="") if found.passed is None and intake.passed else found
                )
            yield intake

    def open(self) -> DatadogWriter:
        """Raises OSError when an authority or certificate cannot be read."""
        return DatadogWriter(self)


class DatadogWriter(Writer):
    """One connection to the intake. `cut` counts the events that were sent cut to Datadog's limit."""

    def __init__(self, settings: Datadog, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self.cut = 0
        root = settings.endpoint or f"https://http-intake.logs.{settings.site}"
        root = root.rstrip("/").removesuffix(PATH)
        parts = urlsplit(root)
        self._site = "" if settings.endpoint else settings.site
        self._where = f"Datadog at {parts.scheme}://{host_and_port(parts.hostname or '', parts.port)}"
        origin, _, version = user_agent().partition("/")
        headers = {
            "Content-Type": "application/json",
            "DD-EVP-ORIGIN": origin,
            "DD-EVP-ORIGIN-VERSION": version,
        }
        if settings.compression == "gzip":
            headers["Content-Encoding"] = "gzip"
        self._connection = HttpConnection(root + PATH, headers, settings.way_out)
        key = settings.api_key
        self._credential = Credential(self._connection, key, "the Datadog API key", "DD-API-KEY")

    def write(self, batch: Batch) -> Outcome | None:
        """Post `batch` once; a second time only after a refused key that has meanwhile been replaced."""
        now = self._clock.now()
        old = self._settings.too_old_at(batch.events, now) if self._settings.too_old == "dead_letter" else []
        unfit = dict.fromkeys(old, TOO_OLD)
        unfit |= {i: TOO_LONG for i, event in enumerate(batch.events) if len(event.id) > MAX_ID}
        if not unfit:
            return self._send(batch, batch.events, now)
        left = [index for index in range(len(batch.events)) if index not in unfit]
        outcome = self._send(batch, [batch.events[index] for index in left], now) if left else None
        outcome = among(outcome or Outcome(), left)
        cause = outcome.cause or next(iter(unfit.values()))
        return replace(outcome, rejected={**unfit, **outcome.rejected}, cause=cause, unsent=list(unfit))

    def _send(self, batch: Batch, events: Sequence[Event], now: float) -> Outcome | None:
        count, settings = len(events), self._settings
        body = settings.encode(events, now)
        if settings.compression == "gzip":
            body = gzip(body)

        def judge(reply: Reply) -> Outcome | None:
            batch.place = request_id(reply)
            now = self._clock.now()
            return outcome_of(self._where, self._site, reply.status, reply.headers, reply.body, count, now)

        outcome = asked(lambda: self._credential.post(body), judge, count, self._where)
        if outcome is None:
            self._count_cut(events)
        return outcome

    def preflight(self) -> Iterator[Finding]:
        """Ask the site whether the API key is one of its keys (API reference, "Validate API key")."""
        settings = self._settings
        root = (settings.endpoint or f"https://api.{settings.site}").rstrip("/")
        connection = HttpConnection(root + VALIDATE_PATH, {}, settings.way_out)
        credential = Credential(connection, settings.api_key, "the Datadog API key", "DD-API-KEY")
        target = connection.beside(VALIDATE_PATH, {}, "GET")

        def judge(reply: Reply) -> Outcome | None:
            status, headers, body, now = reply.status, reply.headers, reply.body, self._clock.now()
            if status == 200 and (fields(body) or {}).get("valid") is True:
                return None
            if status in (200, 404, 405):  # somebody else's endpoint, which takes logs and nothing else
                return Outcome(cause=f"Datadog at {root} cannot be asked about it.")
            return outcome_of(f"Datadog at {root}", self._site, status, headers, body, 0, now)

        try:
            yield finding("the API key", asked(lambda: credential.post(b"", target), judge, 0, self._where))
        finally:
            connection.close()

    def check_intake(self) -> Finding:
        """Send no log at all: where logs go is another host than where keys are asked about, and what lets
        us through to the one may stop us before the other."""
        settings = self._settings
        body = gzip(b"[]") if settings.compression == "gzip" else b"[]"

        def judge(reply: Reply) -> Outcome | None:
            if reply.status == BAD_REQUEST and is_datadogs(reply.body):  # it may want one log at least
                return None
            now = self._clock.now()
            return outcome_of(self._where, self._site, reply.status, reply.headers, reply.body, 0, now)

        return finding("the intake", asked(lambda: self._credential.post(body), judge, 0, self._where))

    def close(self) -> None:
        self._connection.close()

    def _count_cut(self, events: Sequence[Event]) -> None:
        # Half of the limit can never be exceeded by what a long event is escaped to.
        long = [event for event in events if len(event.raw) > MAX_LOG // 2]
        cut = [event.id for event in long if self._settings.size(event) >= MAX_LOG]
        if cut:
            self.cut += len(cut)
            log.warning(
                "%s: %d events longer than the 1 MB that it keeps of a log were cut and marked with the tag "
                "grantex_cut:true (%d so far): %s",
                self._where,
                len(cut),
                self.cut,
                ", ".join(cut[:5]),
            )


def request_id(reply: Reply) -> str:
    """What the intake called the request, for its support to find it; "" when it does not say."""
    name = next((name for name in REQUEST_IDS if reply.headers.get(name)), "")
    return f"request {shown(reply.headers[name])}" if name else ""


def among(outcome: Outcome, indexes: Sequence[int]) -> Outcome:
    """The outcome of a part of a batch in terms of the whole, where that part's events are at `indexes`."""
    rejected = {indexes[index]: reason for index, reason in outcome.rejected.items()}
    return replace(outcome, rejected=rejected, later=[indexes[index] for index in outcome.later])
