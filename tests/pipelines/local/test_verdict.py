"""What a snapshot means: each trouble has its word, its level and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pipelines.local.snapshot import DestinationSnapshot, Snapshot
from pipelines.local.verdict import MOST_CHARACTERS, Level, State, of_connection, of_destination, of_run, said
from tests.pipelines.local.looks import AT, BUSY, LIVE, delivery, destination, down, run
from transforms.feed.journal.cursor import Books
from transforms.feed.status import ConnectionStatus, Phase
from transforms.preflight import Finding
from transforms.secret import parse_secret
from transforms.write.delivery.status import CircuitStatus

WAITING = ConnectionStatus(phase=Phase.WAITING, until=AT + 4, why="the connection was reset")
STOPPED = replace(LIVE, phase=Phase.STOPPED)
WRONG = Books(received=100, delivered=80, dead_lettered=0, pending=10)
NOTHING_YET = delivery("splunk", delivered=0)
GOOD = Finding("the HEC token", True)
UNSURE = Finding("the HEC token", None, "Splunk is busy.")
BAD = Finding("the HEC token", False, "Splunk refused it.")
REFUSED = delivery("splunk", circuit=CircuitStatus(open=True, since=AT, why=BUSY, needs_you=True))
REJECTING = delivery("splunk", dead_letters_go_on=True, last_error="hec_6: Invalid data format")
RETRYING = delivery("splunk", circuit=CircuitStatus(why=BUSY))


@pytest.mark.parametrize(
    ("item", "state", "level", "words"),
    [
        (destination("splunk"), State.DELIVERING, Level.GOOD, ""),
        (down("splunk"), State.DOWN, Level.TROUBLE, "tried again by itself"),
        (destination("splunk", delivery=RETRYING), State.RETRYING, Level.WATCH, "Server is busy"),
        (destination("splunk", lag=90.0), State.BEHIND, Level.WATCH, "look at the service"),
        (destination("files", lag=290.0, max_age=300.0), State.DELIVERING, Level.GOOD, ""),
        (destination("splunk", delivery=None), State.REMOVED, Level.WATCH, "--forget_destination=splunk"),
        (destination("splunk", books=WRONG), State.UNBALANCED, Level.TROUBLE, "10 events are not accounted"),
        (destination("splunk", failure="KeyError: 'x'"), State.RESTARTING, Level.TROUBLE, "KeyError"),
        (
            destination("splunk", delivery=NOTHING_YET),
            State.NOT_TRIED,
            Level.WATCH,
            "No event was delivered yet",
        ),
        (destination("splunk", delivery=NOTHING_YET, preflight=[]), State.NOT_TRIED, Level.WATCH, "No event"),
        (
            destination("splunk", delivery=NOTHING_YET, preflight=[GOOD]),
            State.READY,
            Level.GOOD,
            "the HEC token",
        ),
        (
            destination("splunk", delivery=NOTHING_YET, preflight=[BAD]),
            State.NEEDS_YOU,
            Level.TROUBLE,
            "refused",
        ),
        (
            destination("splunk", delivery=NOTHING_YET, preflight=[UNSURE]),
            State.NOT_TRIED,
            Level.WATCH,
            "busy",
        ),
        # What was found at the start is old news once something was delivered.
        (destination("splunk", preflight=[BAD]), State.DELIVERING, Level.GOOD, ""),
        (destination("splunk", delivery=REFUSED), State.NEEDS_YOU, Level.TROUBLE, "does not heal by itself"),
        (
            destination("splunk", delivery=REJECTING),
            State.REJECTING,
            Level.WATCH,
            "hec_6: Invalid data format",
        ),
    ],
)
def test_destination(item: DestinationSnapshot, state: State, level: Level, words: str) -> None:
    found = of_destination(item)
    assert (found.state, found.level) == (state, level)
    assert words in f"{found.why} {found.to_do}"


def test_what_needs_a_person_is_not_said_to_be_tried_again_by_itself() -> None:
    found = of_destination(destination("splunk", delivery=REFUSED))
    assert "by itself" not in found.to_do.replace("does not heal by itself", "")


def test_unexpected_error_is_told_without_its_text_which_may_quote_an_event() -> None:
    found = of_destination(destination("splunk", failure="ValueError: bad value 'user-123'"))
    assert "ValueError" in found.why
    assert "user-123" not in found.why + found.to_do


@pytest.mark.parametrize(
    ("snapshot", "level", "words"),
    [
        (run(destination("splunk")), Level.GOOD, "All is well."),
        (run(), Level.GOOD, "All is well."),
        (
            run(down("a"), destination("b")),
            Level.TROUBLE,
            "a is down; its events are kept, the others go on.",
        ),
        (run(down("a"), down("b"), down("c")), Level.TROUBLE, "a, b and c are down; their events are kept"),
        (run(connections=[WAITING]), Level.TROUBLE, "The feed is not connected"),
        (run(connections=[WAITING, LIVE]), Level.GOOD, "All is well."),
        (run(connections=[ConnectionStatus()]), Level.WATCH, "The feed is being connected."),
        (run(connections=[ConnectionStatus(phase=Phase.PAUSED)]), Level.TROUBLE, "the journal is full"),
        (run(destination("a"), connections=[STOPPED]), Level.GOOD, "is being delivered."),
        (run(connections=[STOPPED]), Level.GOOD, "Every event received is delivered or a dead letter."),
        (
            run(destination("a", delivery=NOTHING_YET)),
            Level.WATCH,
            "a has not been tried yet: no event came.",
        ),
        (
            run(destination("a", delivery=NOTHING_YET), destination("b", delivery=REFUSED)),
            Level.TROUBLE,
            "b needs you; its events are kept, the others go on.",
        ),
        (run(destination("a", delivery=None)), Level.WATCH, "Events are kept for a, which this run lacks."),
    ],
)
def test_run(snapshot: Snapshot, level: Level, words: str) -> None:
    found = of_run(snapshot)
    assert found.level is level
    assert words in found.text


def test_what_a_service_said_is_one_short_line_without_secrets() -> None:
    token = parse_secret("token-for-nobodys-eyes").read()
    shown = said(f"refused\n  {token} " + "x" * 1000)
    assert shown.startswith("refused [secret] xxx")
    assert len(shown) == MOST_CHARACTERS


def test_dead_letters_of_the_feed_that_cannot_be_written_are_said() -> None:
    verdict = of_run(run(destination("splunk"), letters_failure="dead letters cannot be written to /full"))
    assert verdict.level is Level.TROUBLE
    assert "The feed's own dead letters cannot be written to /full" in verdict.text


def test_a_connection_says_when_it_is_a_websocket() -> None:
    texts = {
        Phase.LIVE: "WebSocket, live: events are received as they are published",
        Phase.WAITING_FOR_HEADERS: "WebSocket, connected, and live within a second",
        Phase.WAITING: "WebSocket, waiting to reconnect: the stream was cut off",
    }
    for phase, text in texts.items():
        status = ConnectionStatus(phase=phase, why="the stream was cut off", transport="websocket")
        assert of_connection(status) == text
    assert of_connection(ConnectionStatus(phase=Phase.LIVE)).startswith("Live: ")
