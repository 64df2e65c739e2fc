"""The webhook receiver: what the service posts to us goes the way of what its streams send, into the journal.

A safety net for when nobody of ours is connected: the service tries each event five times, within some eight
minutes. It answers 200 once the journal has the event, and never 204, 205 or 304, which end the service's
process. A request is verified before anything else is done with it.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pipelines.local.inbound import Answer, Request
from pipelines.local.listener import Listener
from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.event import Event
from transforms.feed.intake import NOT_HEARD, Intake, JournalFull
from transforms.feed.webhook_signature import Verdict, judge, judge_v1
from transforms.parse import parse_frames
from transforms.reminder import Reminder
from transforms.secret import Secret, SecretError, read_by
from transforms.way_out import USUAL, WayOut

log = logging.getLogger("grantex.webhooks")

# The service posts five at a time; more of them than of anything else can be waiting for room.
THREADS = 8
MOST_CONNECTIONS = 64
HOLD_SECONDS = 8.0  # for room in the journal; the service waits for an answer for ten
LOOK_FOR_ROOM = 0.5
# A new secret is read when the old ones fit no longer, but not for each request of somebody who has none. The
# service tries again after 30 s, and then finds it.
REREAD_SECONDS = 15.0
REPORT_SECONDS = 60.0
REPEATS_KNOWN = 4096  # what the service sends in a window of ten minutes, ten times over

# What became of a request. Only the first four are answered with 200: there is nothing to send again.
ACCEPTED, DUPLICATE, FILTERED, NOT_AN_EVENT = "accepted", "duplicate", "filtered", "not_an_event"
BAD_SIGNATURE, STALE, NO_SECRET = "bad_signature", "stale", "no_secret"
JOURNAL_FULL, FAILED = "journal_full", "failed"
METHOD, PATH = "method", "path"
RESULTS = (
    *(ACCEPTED, DUPLICATE, FILTERED, NOT_AN_EVENT),
    *(BAD_SIGNATURE, STALE, NO_SECRET, JOURNAL_FULL, FAILED, METHOD, PATH),
    *("too_large", "malformed", "slow", "busy"),  # the listener's own
)

UNKNOWN = (BAD_SIGNATURE, NO_SECRET)  # until the secrets are read again
RECEIVED = Answer(200, b"received\n")
ANSWERS = {
    BAD_SIGNATURE: Answer(401, b"the signature is made with none of the secrets known here\n"),
    STALE: Answer(401, b"it was signed too long ago, or too far ahead\n"),
    NO_SECRET: Answer(503, b"a secret cannot be read here: later\n"),
    JOURNAL_FULL: Answer(503, b"there is no room here: later\n"),
    FAILED: Answer(503, b"this could not be kept here: later\n"),
    METHOD: Answer(405, b"webhooks are posted\n", headers=(("Allow", "POST"),)),
    PATH: Answer(404, b"webhooks are taken elsewhere\n"),
}
# What is told of what came to nothing. What is not here has a line of its own, or is a probe's.
ADVICE = {
    BAD_SIGNATURE: "if they are the service's, --webhook_secret lacks the secret of a webhook",
    STALE: "this machine's clock may be wrong, or somebody repeats old requests",
    NOT_AN_EVENT: "signed all the same, and so among the dead letters",
    "too_large": "if they are the service's, raise --webhook_max_bytes",
    "malformed": "no HTTP requests",
    "slow": "not sent whole in time",
    "busy": "too many at once",
}


@dataclass(frozen=True)
class WebhookSettings:
    """What is listened on and who is believed.

    secrets: each webhook has one. types: what to keep, as the streams are asked for; none is all.
    allow_v1: also take what has the older signature only, which anybody who has seen it can send again.
    """

    port: int
    secrets: Sequence[Secret]
    host: str = "127.0.0.1"
    path: str = "/"
    max_bytes: int = 1024**2
    allow_v1: bool = False
    types: Sequence[str] = ()
    way_out: WayOut = USUAL


class WebhookReceiver:
    """Takes webhooks into an intake from `start` on, until it is closed."""

    def __init__(
        self,
        settings: WebhookSettings,
        intake: Intake,
        clock: Clock,
        on_broken: Callable[[], None] = lambda: None,
    ) -> None:
        """Binds at once. Raises PortTaken and ListenFailed.

        on_broken: called when the journal turns out to be damaged, which only the next start repairs.
        """
        self._settings, self._intake, self._clock, self._on_broken = settings, intake, clock, on_broken
        self._secrets = _Secrets(settings.secrets, settings.way_out, clock)
        self._counts = _Counts(clock)
        self._repeats = _Repeats()
        self._trouble = Reminder()
        self._closing = threading.Event()
        self._listener = Listener(
            settings.host,
            settings.port,
            self._answer,
            name="webhooks",
            max_body=settings.max_bytes,
            connections=MOST_CONNECTIONS,
            threads=THREADS,
            at_once=self._at_once,
            refused=self._counts.add,
            monotonic=clock.monotonic,
        )

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._listener.port

    @property
    def counts(self) -> Mapping[str, int]:
        """How many requests came to what, since the start; all of RESULTS."""
        return self._counts.all()

    def start(self) -> None:
        """Begin to take them; until then they wait in their connections."""
        self._secrets.read()
        self._listener.start()

    def close(self) -> None:
        """Take no more; what is answered with 200 is in the intake when this returns."""
        self._closing.set()
        self._listener.close()

    def _at_once(self, request: Request) -> Answer | None:
        """The answer to what is not to be kept: a flood of it must cost little, and wait for nothing."""
        result = self._refusal(request)
        if result is None or (result in UNKNOWN and self._secrets.may_have_changed):
            return None
        return self._counted(result, request)

    def _answer(self, request: Request) -> Answer:
        """The answer to the rest: it may read a secret, or wait for room."""
        result = self._refusal(request)
        if result in UNKNOWN:
            self._secrets.read_again()
            result = self._refusal(request)
        return self._counted(result or self._keep(request), request)

    def _counted(self, result: str, request: Request) -> Answer:
        self._counts.add(result, request.client)
        return ANSWERS.get(result, RECEIVED)

    def _refusal(self, request: Request) -> str | None:
        """What speaks against keeping it; None when nothing does."""
        if request.path != self._settings.path:
            return PATH
        if request.method != "POST":
            return METHOD
        verdict = self._judge(request)
        if verdict is Verdict.STALE:
            return STALE
        if verdict is Verdict.BAD_SIGNATURE:
            return NO_SECRET if self._secrets.unreadable else BAD_SIGNATURE
        return DUPLICATE if _mark(request) in self._repeats else None

    def _judge(self, request: Request) -> Verdict:
        headers, secrets = request.headers, self._secrets.values
        if (signature := headers.get("X_GRANTEX_SIGNATURE_V2")) is not None:
            timestamp = headers.get("X_GRANTEX_TIMESTAMP", "")
            return judge(request.body, signature, timestamp, secrets, self._clock.now())
        if self._settings.allow_v1:
            return judge_v1(request.body, headers.get("X_GRANTEX_SIGNATURE", ""), secrets)
        return Verdict.BAD_SIGNATURE

    def _keep(self, request: Request) -> str:
        events, letters = parse_frames([request.body], self._clock.now())
        types = self._settings.types
        if types and events and events[0].type and events[0].type not in types:
            return FILTERED  # as the service does with a stream: what has no type passes
        until = request.began + HOLD_SECONDS
        while (result := self._append(events, letters)) == JOURNAL_FULL:
            if self._clock.monotonic() >= until or self._clock.wait(self._closing, LOOK_FOR_ROOM):
                break
        if result not in ANSWERS:
            self._repeats.add(_mark(request))
        return result

    def _append(self, events: Sequence[Event], letters: Sequence[DeadLetter]) -> str:
        try:
            taken = self._intake.append(events, letters, NOT_HEARD, "webhook")
        except JournalFull as full:
            self._report(f"{full.place} is full ({full}); {full.advice}")
            return JOURNAL_FULL
        except sqlite3.DatabaseError as error:
            self._report(f"the journal cannot be written ({error})")
            self._on_broken()
            return FAILED
        if letters:
            return NOT_AN_EVENT
        return ACCEPTED if taken else DUPLICATE

    def _report(self, why: str) -> None:
        if self._trouble.is_due(why, self._clock.monotonic()):
            log.error("webhooks wait, and are refused after %.0f s: %s", HOLD_SECONDS, why)


def _mark(request: Request) -> bytes:
    """The same for the same request only."""
    names = ("X_GRANTEX_SIGNATURE_V2", "X_GRANTEX_TIMESTAMP", "X_GRANTEX_SIGNATURE")
    signed = "\n".join(request.headers.get(name, "") for name in names)
    return hashlib.sha256(signed.encode() + request.body).digest()


class _Secrets:
    """The secrets as they were last read, and when that was."""

    def __init__(self, references: Sequence[Secret], way_out: WayOut, clock: Clock) -> None:
        self.values: tuple[str, ...] = ()
        self.unreadable = ""  # why one of them is not there, "" when all are
        self._references, self._way_out, self._clock = references, way_out, clock
        self._lock = threading.Lock()
        self._read_at = 0.0
        self._trouble = Reminder()

    def read(self) -> None:
        """Read all of them; one that cannot be read is as good as not given, until it can."""
        self._read_at = self._clock.monotonic()  # at once: nobody else begins meanwhile
        read = [self._value(each) for each in self._references]
        values = tuple(value for value, _ in read if value)
        why = next((why for _, why in read if why), "")
        if why and self._trouble.is_due(why, self._read_at):
            log.error("webhooks that it belongs to are refused until --webhook_secret can be read: %s", why)
        self.values, self.unreadable = values, why

    def _value(self, reference: Secret) -> tuple[str, str]:
        try:
            return read_by(self._way_out, reference), ""
        except SecretError as error:
            return "", str(error)

    @property
    def may_have_changed(self) -> bool:
        """Whether it is time to look again."""
        return self._clock.monotonic() - self._read_at >= REREAD_SECONDS

    def read_again(self) -> None:
        """Read them, unless that was just done or is being done by somebody else."""
        if self.may_have_changed and self._lock.acquire(blocking=False):
            try:
                self.read()
            finally:
                self._lock.release()


class _Repeats:
    """Requests that were answered with 200, by what is signed: exactly the same one again is nobody's but one
    who repeats it, and must not cost a look into the journal, or a dead letter."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def __contains__(self, mark: bytes) -> bool:
        return mark in self._known

    def add(self, mark: bytes) -> None:
        with self._lock:
            self._known[mark] = None
            if len(self._known) > REPEATS_KNOWN:
                self._known.popitem(last=False)


class _Counts:
    """Counts results, and says in the log what was refused: at once, then at most once a minute."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: Counter[str] = Counter(dict.fromkeys(RESULTS, 0))
        self._untold: Counter[str] = Counter()
        self._told_at = -REPORT_SECONDS
        self._lock = threading.Lock()

    def all(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)

    def add(self, result: str, client: str) -> None:
        now = self._clock.monotonic()
        with self._lock:
            self._counts[result] += 1
            if result not in ADVICE:
                return
            self._untold[result] += 1
            if now - self._told_at < REPORT_SECONDS:
                return
            untold, self._untold, self._told_at = self._untold, Counter(), now
        told = "; ".join(f"{count} {name} ({ADVICE[name]})" for name, count in untold.items())
        log.warning("webhooks without an event, the last from %s: %s", client, told)
