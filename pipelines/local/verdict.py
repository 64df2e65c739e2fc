"""What a snapshot means, in plain words and with what to do: the same on the page and in the terminal."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

from pipelines.local.snapshot import DestinationSnapshot, Snapshot, StandingBy
from transforms.feed.request import WEBSOCKET
from transforms.feed.status import ConnectionStatus, Phase
from transforms.feed.status import State as ConnectionState
from transforms.secret import redact
from transforms.write.delivery.status import CircuitStatus

# Lag beyond `max_age` that a healthy destination does not reach: some requests' time-outs.
BEHIND_SECONDS = 30.0
MISSING_SECONDS = 3600.0  # for so long after events were found to be missing, that is the first thing said
UNPROVEN_SECONDS = 600.0  # without a proof, somebody should know
SOON_FULL_SECONDS, TROUBLE_FULL_SECONDS = 86_400.0, 3600.0  # before the journal is full: it is said
MOST_CHARACTERS = 400  # of what a service said


class Level(str, enum.Enum):
    """How much a person should care."""

    GOOD = "good"
    WATCH = "watch"
    TROUBLE = "trouble"


class State(str, enum.Enum):
    """How a destination is doing, in the word that is shown."""

    DELIVERING = "delivering"
    NOT_TRIED = "not tried yet"
    READY = "ready"
    REJECTING = "dead letters"
    RETRYING = "retrying"
    BEHIND = "behind"
    DOWN = "down"
    NEEDS_YOU = "needs you"
    RESTARTING = "restarting"
    REMOVED = "removed"
    UNBALANCED = "books wrong"


LEVELS = {
    State.DELIVERING: Level.GOOD,
    State.READY: Level.GOOD,
    State.NOT_TRIED: Level.WATCH,
    State.REJECTING: Level.WATCH,
    State.RETRYING: Level.WATCH,
    State.BEHIND: Level.WATCH,
    State.REMOVED: Level.WATCH,
    State.DOWN: Level.TROUBLE,
    State.NEEDS_YOU: Level.TROUBLE,
    State.RESTARTING: Level.TROUBLE,
    State.UNBALANCED: Level.TROUBLE,
}


# It is not well, and somebody who waits need do nothing.
HEALS_ITSELF = frozenset({State.RETRYING, State.BEHIND, State.DOWN, State.RESTARTING})


@dataclass(frozen=True)
class Verdict:
    """A level, and what is going on ("" when all is well) in one or two sentences."""

    level: Level
    text: str


@dataclass(frozen=True)
class DestinationVerdict:
    """`why`: what is wrong; `to_do`: what a person should do; both "" when nothing is."""

    state: State
    why: str = ""
    to_do: str = ""

    @property
    def level(self) -> Level:
        return LEVELS[self.state]

    @property
    def heals_itself(self) -> bool:
        """Whether it is not well and nobody has to do anything."""
        return self.state in HEALS_ITSELF


def of_destination(item: DestinationSnapshot) -> DestinationVerdict:
    """How one destination is doing. Says nothing of a failure's text, which may quote an event."""
    books, delivery = item.books, item.delivery
    if not books.balanced:
        why = f"{books.unexplained:,} events are not accounted for."
        return DestinationVerdict(State.UNBALANCED, why, "Keep --state_dir as it is and report this.")
    if delivery is None:
        return DestinationVerdict(
            State.REMOVED,
            f"Not among this run's destinations. {books.pending:,} events are kept for it.",
            f"Give its flags again, or --forget_destination={item.name} to let them go.",
        )
    if item.failure:
        return DestinationVerdict(
            State.RESTARTING,
            f"Stopped on an unexpected {item.failure.partition(':')[0]}. Its events are kept.",
            "It starts again by itself; if it does not recover, the log has what to report.",
        )
    if (refused := _refused_at_the_start(item)) is not None:
        return refused
    if (failing := of_circuit(delivery.circuit)) is not None:
        return failing
    if item.lag > item.max_age + BEHIND_SECONDS:
        return DestinationVerdict(
            State.BEHIND,
            "Events come faster than it takes them, or it has not answered yet. They are kept.",
            "If the lag grows, look at the service.",
        )
    if delivery.dead_letters_go_on:
        return DestinationVerdict(
            State.REJECTING,
            f"Events are being refused one by one: {said(delivery.last_error)}",
            "Each is kept as a dead letter with the reason: look at them, and at the cause.",
        )
    return DestinationVerdict(State.DELIVERING) if delivery.delivered else _before_the_first(item)


PUT_RIGHT = (
    "This does not heal by itself: put it right as it says. Nothing is lost, all is delivered afterwards."
)


def of_circuit(circuit: CircuitStatus) -> DestinationVerdict | None:
    """What attempts have come to, on one machine or on a cluster; None when nothing fails."""
    if circuit.open and circuit.needs_you:
        return DestinationVerdict(State.NEEDS_YOU, said(circuit.why), PUT_RIGHT)
    if circuit.open:
        to_do = "Nothing is lost and it is tried again by itself. If it lasts, look at the service."
        return DestinationVerdict(State.DOWN, said(circuit.why), to_do)
    return DestinationVerdict(State.RETRYING, said(circuit.why)) if circuit.why else None


def _refused_at_the_start(item: DestinationSnapshot) -> DestinationVerdict | None:
    """What only a person can put right, told by the preflight: until a delivery says more."""
    assert item.delivery is not None
    failed = [each for each in item.preflight or () if each.passed is False]
    if failed and not item.delivery.delivered and not item.delivery.circuit.open:
        return DestinationVerdict(State.NEEDS_YOU, said(f"{failed[0].what}: {failed[0].cause}"), PUT_RIGHT)
    return None


def _before_the_first(item: DestinationSnapshot) -> DestinationVerdict:
    """Nothing was delivered in this run, and nothing failed either."""
    found = item.preflight or ()
    if unsure := [each for each in found if each.passed is None]:
        return DestinationVerdict(State.NOT_TRIED, said(f"{unsure[0].what}: {unsure[0].cause}"))
    if found:
        passed = ", ".join(each.what for each in found)
        return DestinationVerdict(State.READY, f"Tried at the start ({passed}); no event came yet.")
    return DestinationVerdict(
        State.NOT_TRIED, "No event was delivered yet in this run, and nothing could be tried without one."
    )


def of_run(snapshot: Snapshot) -> Verdict:
    """The one sentence that a person reads first."""
    if snapshot.standing_by is not None:
        return _of_standby(snapshot, snapshot.standing_by)
    problems = [of_feed(snapshot)]
    verdicts = {item.name: of_destination(item) for item in snapshot.destinations}
    for state in (
        State.UNBALANCED,
        State.NEEDS_YOU,
        State.DOWN,
        State.RESTARTING,
        State.RETRYING,
        State.BEHIND,
        State.REJECTING,
    ):
        names = [name for name, verdict in verdicts.items() if verdict.state is state]
        if names:
            problems.append(Verdict(LEVELS[state], of_names(names, state)))
    if snapshot.full_at is not None and snapshot.full_at - snapshot.at < SOON_FULL_SECONDS:
        problems.append(_soon_full(snapshot.full_at, snapshot.at))
    if snapshot.letters_failure:
        problems.append(Verdict(Level.TROUBLE, f"The feed's own {said(snapshot.letters_failure)}"))
    if (proof := of_proof(snapshot)) is not None:
        problems.append(proof)
    removed = [name for name, verdict in verdicts.items() if verdict.state is State.REMOVED]
    if removed:
        problems.append(
            Verdict(Level.WATCH, f"Events are kept for {_listed(removed)}, which this run lacks.")
        )
    found = [problem for problem in problems if problem.level is not Level.GOOD]
    untried = [name for name, verdict in verdicts.items() if verdict.state is State.NOT_TRIED]
    if not found and untried and not ended(snapshot):
        return Verdict(
            Level.WATCH, f"Nothing is wrong so far. {_listed(untried)} {_untried(len(untried) > 1)}"
        )
    if not found:
        proven = f" {proof.text}" if proof is not None else ""
        return Verdict(Level.GOOD, f"{_all_is_well(snapshot)}{proven}")
    level = Level.TROUBLE if any(each.level is Level.TROUBLE for each in found) else Level.WATCH
    return Verdict(level, " ".join(each.text for each in found))


def _soon_full(full_at: float, now: float) -> Verdict:
    return Verdict(
        Level.TROUBLE if full_at - now < TROUBLE_FULL_SECONDS else Level.WATCH,
        f"At this rate the journal is full in about {duration(full_at - now)}; then the feed is not read.",
    )


def _of_standby(snapshot: Snapshot, standby: StandingBy) -> Verdict:
    if standby.why_not:
        return Verdict(Level.TROUBLE, f"Standing by, and could not take over now: {said(standby.why_not)}")
    feed = of_feed(snapshot)
    if feed.level is not Level.GOOD or standby.reaches_back_to is None:
        return Verdict(feed.level, f"Standing by for another process. {feed.text}")
    return Verdict(
        Level.GOOD,
        "Standing by: another process delivers. This one takes over when that one ends, without a gap of up "
        f"to {duration(snapshot.at - standby.reaches_back_to)}: so far back it has heard everything.",
    )


def duration(seconds: float) -> str:
    """Seconds as a person says them: 0.4 s, 12 s, 3 min, 5 h."""
    if seconds < 0.05:
        return "0 s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def of_feed(snapshot: Snapshot) -> Verdict:
    """Whether events are being received."""
    if snapshot.live:
        return Verdict(Level.GOOD, "Events are being received.")
    phases = {status.phase for status in snapshot.connections}
    if Phase.PAUSED in phases:
        text = "The feed is not read, as the journal is full: events published now may be missed."
        return Verdict(Level.TROUBLE, text)
    if Phase.WAITING in phases or snapshot.gap_open:
        text = "The feed is not connected: events published now may be missed."
        return Verdict(Level.TROUBLE, text)
    if ended(snapshot):
        return Verdict(Level.GOOD, "The feed is closed.")
    return Verdict(Level.WATCH, "The feed is being connected.")


def of_proof(snapshot: Snapshot) -> Verdict | None:
    """What the service's ledger says about what was received; None when it is not asked."""
    proof = snapshot.proof
    if proof is None:
        return None
    told = ""
    if proof.until:
        told = f"Every event up to {at_second(proof.until)} is accounted for."
    if proof.missing:
        came = f", {proof.found:,} of them came later" if proof.found else ""
        told = (
            f"{told} {proof.missing:,} events are missing{came}: each is a dead letter of the feed.".strip()
        )
    if proof.told_at is not None and snapshot.at - proof.told_at < MISSING_SECONDS:
        return Verdict(Level.TROUBLE, told)
    if proof.failing_since is not None and snapshot.at - proof.failing_since > UNPROVEN_SECONDS:
        return Verdict(Level.WATCH, f"{told} Nothing newer is proven: {said(proof.failure)}".strip())
    return Verdict(
        Level.GOOD, told or "Nothing is proven yet: the first look at the ledger comes within minutes."
    )


def at_second(epoch: float) -> str:
    """A time of today as people read it, in UTC."""
    return datetime.fromtimestamp(epoch, timezone.utc).strftime("%H:%M:%S UTC")


def ended(snapshot: Snapshot) -> bool:
    """Whether the feed was read and is not any more: the job drains, or its input has ended."""
    stopped = all(status.phase is Phase.STOPPED for status in snapshot.connections)
    return stopped and any(status.last_heard_at for status in snapshot.connections)


def _all_is_well(snapshot: Snapshot) -> str:
    if not ended(snapshot):
        return "All is well. Every event received is delivered or on its way."
    if any(item.books.pending for item in snapshot.destinations):
        return "The feed is closed. What was received is being delivered."
    return "The feed is closed. Every event received is delivered or a dead letter."


def of_connection(status: ConnectionStatus) -> str:
    """What a connection does; when it will try again is in `status.until`."""
    text = _CONNECTIONS.get(status.phase) or f"Waiting to reconnect: {said(status.why)}"
    text = _STATES.get(status.state or ConnectionState.LIVE, text)
    if status.transport != WEBSOCKET:
        return text
    if status.phase is Phase.WAITING_FOR_HEADERS and status.state is not ConnectionState.REPLACING:
        text = "Connected, and live within a second"
    return f"WebSocket, {text[0].lower()}{text[1:]}"


def said(text: str) -> str:
    """What a service or a library said, fit for showing: one line, no secret, not endless."""
    line = redact(" ".join(text.split()))
    return line if len(line) <= MOST_CHARACTERS else line[: MOST_CHARACTERS - 1] + "…"


_STATES = {
    ConnectionState.SUSPECT: "Suspect: another stream received what this one did not; it is being replaced",
    ConnectionState.REPLACING: "Being opened in the place of another one",
}
_CONNECTIONS = {
    Phase.LIVE: "Live: events are received as they are published",
    Phase.CONNECTING: "Connecting",
    Phase.WAITING_FOR_HEADERS: "Connected: the service speaks at the first event or keepalive, "
    "within half a minute",
    Phase.PAUSED: "Paused: the journal is full, destinations have to catch up",
    Phase.STOPPED: "Not reading",
}


def of_names(names: Sequence[str], state: State) -> str:
    """The sentence about destinations that are in a state which is not well."""
    return f"{_listed(names)} {_says(state, len(names) > 1)}"


def _says(state: State, many: bool) -> str:
    are, their, have = ("are", "their", "have") if many else ("is", "its", "has")
    return {
        State.NEEDS_YOU: f"{'need' if many else 'needs'} you; {their} events are kept, the others go on.",
        State.DOWN: f"{are} down; {their} events are kept, the others go on.",
        State.REJECTING: f"{'refuse' if many else 'refuses'} events, which become dead letters.",
        State.RESTARTING: f"{are} restarting after an error; {their} events are kept, the others go on.",
        State.RETRYING: f"{are} being tried again.",
        State.BEHIND: f"{are} behind; {their} events are kept.",
        State.UNBALANCED: f"{have} books that do not balance: keep --state_dir as it is and report this.",
    }[state]


def _untried(many: bool) -> str:
    return f"{'have' if many else 'has'} not been tried yet: no event came."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
