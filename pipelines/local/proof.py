"""Continuous proof: the newest pages of the service's delivery ledger against what was received.

What is missing becomes a dead letter of the feed, once; what cannot be told is never called missing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from transforms.clock import Clock
from transforms.dead_letter import DeadLetter
from transforms.feed.intake import Gap, iso
from transforms.feed.journal import Journal
from transforms.feed.journal.proven import Proof, missing_letter
from transforms.feed.journal.receipts import Receipts
from transforms.feed.ledger import SLACK, Delivery, Ledger, LedgerError, LedgerGone, Stopped, Webhook, choose
from transforms.feed.request import FeedSettings
from transforms.reminder import Reminder

log = logging.getLogger("grantex.ledger")

# An event is in flight for so long at most, and is not asked for before; with the wait between two walks it
# is told within two minutes that one is missing.
IN_FLIGHT = 60.0
LOOK_EVERY = 45.0
# The service's clock is told by its answers, to a second; whatever is later than so much after a boundary is
# certainly behind it.
CLOCKS = 2.0
CHOOSE_EVERY = 3600.0  # webhooks are registered by people, seldom
AT_ONCE = 1000  # ids that are looked for under the journal's lock
MOST_AT_ONCE = 10_000  # missing events that are recorded together
MOST_LINES = 1000  # in the log for one walk; the dead letters have all
GAPS = 100  # the last ones on record, by which a missing event is explained


@dataclass(frozen=True)
class ProofStatus:
    """What is known. Times are epoch seconds; `since` and `until` are None while nothing is proven.

    not_covered: known types without rows in the ledger, which no proof can be about. failure: why the last
    walk did not come to its end, "" when it did. told_at: when an event was last found to be missing.
    """

    webhook: str
    since: float | None
    until: float | None
    missing: int
    found: int
    not_covered: tuple[str, ...] = ()
    failure: str = ""
    failing_since: float | None = None
    told_at: float | None = None


class ContinuousProof:
    """Walks in a thread of its own.

    webhook: an id, or `auto`. own_url: what our own receiver is registered under, which `auto` prefers.
    heard_until: until when all that was published was heard or is in a gap (epoch seconds); None: not yet.
    """

    def __init__(
        self,
        feed: FeedSettings,
        webhook: str,
        journal: Journal,
        heard_until: Callable[[], float | None],
        clock: Clock,
        own_url: str = "",
    ) -> None:
        self._feed, self._wanted, self._journal, self._clock = feed, webhook, journal, clock
        self._heard_until, self._own_url = heard_until, own_url
        self._stop = threading.Event()
        self._ledger = Ledger(feed, clock=clock, stop=self._stop)
        self._webhook: Webhook | None = None
        self._chosen_at = 0.0
        self._failure, self._failing_since = "", clock.now()
        self._told_at: float | None = None
        self._unknown_until = 0.0  # there were events before it that even the receipts do not know any more
        self._trouble, self._hint = Reminder(), Reminder()
        self._thread = threading.Thread(target=self._run, name="ledger-proof", daemon=True)

    @property
    def status(self) -> ProofStatus:
        """What is known now."""
        proof, webhook = self._journal.proof, self._webhook
        return ProofStatus(
            webhook=webhook.id if webhook else self._wanted,
            since=proof.since or None,
            until=proof.until if proof.until > proof.since else None,
            missing=proof.missing,
            found=proof.found,
            not_covered=tuple(self._not_covered()),
            failure=self._failure,
            failing_since=self._failing_since if self._failure else None,
            told_at=self._told_at,
        )

    def start(self) -> None:
        """Begin; returns at once. The first walk comes a while later: what a standby or the streams received
        meanwhile is in the journal by then."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """No further walk; one that is under way ends."""
        self._stop.set()
        self._ledger.close()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        self._try(self._choose)  # at once, so that whoever has no webhook knows
        while not self._clock.wait(self._stop, LOOK_EVERY):
            self._try(self.walk)

    def _try(self, what: Callable[[], object]) -> None:
        try:
            what()
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing waits for a proof
            if not self._stop.is_set():
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self._failure:
            self._failing_since = self._clock.now()
        self._failure = str(error) or type(error).__name__
        if isinstance(error, LedgerGone):
            self._webhook = None  # choose again
        if self._trouble.is_due(self._failure, self._clock.monotonic()):
            known = isinstance(error, LedgerError)
            log.warning("nothing is proven for now: %s", self._failure, exc_info=None if known else error)

    def walk(self) -> None:
        """Prove what can be proven now. Raises LedgerError, Stopped, and what a damaged journal raises."""
        webhook = self._choose()
        pages = self._ledger.walk(webhook.id)
        newest = next(pages)  # with it comes what time it is there
        heard = self._heard_until()
        if heard is not None:
            ahead = self._ledger.ahead
            until = min(self._clock.now() - IN_FLIGHT, heard) + ahead
            before = self._begin(webhook, heard + ahead, self._known_since() + ahead)
            if until > before.until:
                self._prove(before, until, chain([newest], pages))
        if self._failure:
            log.info("the ledger is being read again")
        self._failure = ""
        self._trouble.over()

    def _choose(self) -> Webhook:
        now = self._clock.monotonic()
        if self._webhook is None or now - self._chosen_at >= CHOOSE_EVERY:
            self._webhook = choose(self._ledger.webhooks(), self._wanted, self._own_url)
            self._chosen_at = now
            names = self._not_covered()
            if names and self._hint.is_due(",".join(names), now):
                log.info(
                    "webhook %s has no rows of %d known types, of which nothing can be proven: %s",
                    self._webhook.id,
                    len(names),
                    ", ".join(names),
                )
        return self._webhook

    def _not_covered(self) -> list[str]:
        return [] if self._webhook is None else self._webhook.lacks(self._feed.types)

    def _begin(self, webhook: Webhook, heard: float, known_since: float) -> Proof:
        """The proof that goes on: what was proven last, unless this is the first walk, another webhook's, or
        ids of what came since have been forgotten. Then time in between cannot be proven."""
        last = self._journal.proof
        begin = max(last.until, known_since + CLOCKS, webhook.created_at)
        if last.until and begin == last.until:
            return Proof(webhook.id, last.since, last.until, last.missing, last.found)
        if last.until:
            log.warning(
                "from %s to %s nothing can be proven: ids of that time are not kept any more, or the webhook "
                "is younger; `grantex-beam reconcile` compares the ledger with a destination",
                iso(last.until),
                iso(begin),
            )
        else:
            begin = max(begin, heard + CLOCKS)
        proof = Proof(webhook.id, begin, begin, last.missing, last.found)
        self._journal.keep_proof(proof, (), ())
        return proof

    def _prove(self, before: Proof, until: float, pages: Iterable[Sequence[Delivery]]) -> None:
        """Go down to where the last walk ended, and a little further, as some rows may have come late."""
        begin, proof = max(before.since, before.until - SLACK), before
        absent: list[Delivery] = []
        for rows in pages:
            inside = [
                row for row in rows if begin < _latest(row) <= until and self._is_asked_for(row.eventType)
            ]
            absent += self._absent(inside)
            if len(absent) >= MOST_AT_ONCE:
                proof, absent = self._record(proof, before.until, absent), []
            if rows and max(map(_latest, rows)) < begin - SLACK:
                break
        # Once more: some may have come since.
        self._record(proof, until, self._absent(absent))

    def _is_asked_for(self, event_type: str) -> bool:
        return not self._feed.types or event_type in self._feed.types

    def _known_since(self) -> float:
        """Since when it can be told of an event that it was not received; epoch seconds."""
        since, until = self._journal.ids_known_since, self._journal.proof.until - self._ledger.ahead
        if until > since + CLOCKS or not self._journal.keeps_receipts:
            return since
        with contextlib.closing(Receipts(self._journal.directory)) as receipts:  # after a longer stop
            return min(since, receipts.kept_since())

    def _absent(self, rows: Sequence[Delivery]) -> list[Delivery]:
        received = set(self._received([row.eventId for row in rows]))
        absent = [row for row in rows if row.eventId not in received]
        old = self._journal.ids_known_since + self._ledger.ahead + CLOCKS
        beyond = [row.eventId for row in absent if _latest(row) < old]
        if not beyond or not self._journal.keeps_receipts:
            return absent
        with contextlib.closing(Receipts(self._journal.directory)) as receipts:
            found = list(receipts.find(beyond))
        told = {each.id for each in found if each.received_at is not None or each.expired}
        expired = {each.id for each in found if each.expired}
        unknown = [_latest(row) for row in absent if row.eventId in expired]
        self._unknown_until = max([self._unknown_until, *unknown])
        return [row for row in absent if row.eventId not in told]

    def _received(self, ids: Sequence[str]) -> Iterator[str]:
        for start in range(0, len(ids), AT_ONCE):
            part = ids[start : start + AT_ONCE]
            yield from (each for each, here in zip(part, self._journal.received(part), strict=True) if here)

    def _record(self, proof: Proof, until: float, absent: Sequence[Delivery]) -> Proof:
        """Keep until when all is accounted for, what is missing, and what was missing and came after all."""
        before = self._journal.missing
        found = set(self._received(before))
        known, gaps = set(before), self._journal.latest_gaps(GAPS)
        fresh = {row.eventId: row for row in reversed(absent) if row.eventId not in known}  # oldest first
        letters = [self._letter(row, gaps) for row in fresh.values()]
        missing, came = proof.missing + len(letters), proof.found + len(found)
        kept = Proof(proof.webhook, max(proof.since, self._unknown_until), until, missing, came)
        self._journal.keep_proof(kept, letters, found)
        self._tell(letters, found)
        return kept

    def _letter(self, row: Delivery, gaps: Sequence[Gap]) -> DeadLetter:
        at = row.at - self._ledger.ahead
        for gap in gaps:
            if gap.since - CLOCKS <= at <= (gap.until or at) + CLOCKS:
                return missing_letter(
                    row.eventId, row.eventType, row.createdAt, self._clock.now(), gap.reason
                )
        return missing_letter(row.eventId, row.eventType, row.createdAt, self._clock.now())

    def _tell(self, letters: Sequence[DeadLetter], found: set[str]) -> None:
        for letter in letters[:MOST_LINES]:
            log.error("%s is %s", letter.event_id, letter.cause)
        for event_id in sorted(found):
            log.info("%s was missing and has come after all", event_id)
        if letters:
            self._told_at = self._clock.now()
            log.error(
                "events that the service published and nobody received: %d; each is a dead letter (missing)",
                len(letters),
            )


def _latest(row: Delivery) -> float:
    """An event is published once its row is written, however old its id is by then."""
    return max(row.at, row.written_at)
