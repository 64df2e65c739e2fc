"""docs/runbook.md: an entry for each alert, state of the page, message, and cause of a dead letter.

Made of the packs' alerts, the states of pipelines/local/verdict.py, and the two tables of advice that the
messages are made of: transforms/write/advice.py and transforms/feed/advice.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from pipelines.local.verdict import LEVELS, Level, State, of_connection
from pipelines.packs.detection import Detection, Rule
from pipelines.packs.detections import CATALOGUE
from pipelines.packs.detections.exporter import SERVICE_RULES
from transforms.feed.advice import FEED
from transforms.feed.status import ConnectionStatus, Phase
from transforms.feed.status import State as ConnectionState
from transforms.write.advice import ADVICE

PAGE = "docs/runbook.md"
HEALS = "heals by itself"

INTRODUCTION = """# Runbook

Made by `python -m pipelines.packs`; a test fails when this page is not what it makes. For whoever was called:
search this page for the alert's name, the word on the status page, or the words of the message.

**Three things that are always true.** What was received is on disk and is delivered later: no outage of a
destination loses an event, and none needs a restart. What is published while no stream of ours is open is
gone, and on record as a gap. Nothing is deleted by hand: keep `--state_dir` as it is.

**Where to look first**: the status page (`http://127.0.0.1:8787/`, also `/status.json`) says in one sentence
what is wrong and what to do. `grantex-beam where --state_dir=… ID` tells where one event is. A line of the
log at `ERROR` names what failed, what was kept and what to do.

An alert's annotation `runbook_url` is a path in this tree, such as `docs/runbook.md#grantexfeeddown`. Put the
address where you keep these pages in its place, once, with
`sed -i 's|docs/runbook.md|https://wiki.example.com/runbook|' FILE`.

- [Alerts about the job](#alerts-about-the-job), [about the service](#alerts-about-the-service), [about
  events](#alerts-about-events)
- [What the page says](#what-the-page-says): destinations, streams, the first line
- [The messages](#the-messages): the feed, every destination
- [Dead letters](#dead-letters), by cause
- [A start that ends](#a-start-that-ends), by exit code and words
"""

# What a destination's state means, and what to do; the page adds the reason.
STATES: Mapping[State, tuple[str, str]] = {
    State.DELIVERING: ("It takes events.", "Nothing."),
    State.READY: ("The preflight passed; no event came yet in this run.", "Nothing."),
    State.NOT_TRIED: (
        "Nothing was delivered in this run, and the preflight could not tell.",
        "Wait for an event, or run `grantex-beam check` with the job's flags.",
    ),
    State.REJECTING: (
        "It refuses single events while it takes others.",
        "Look at their [cause](#dead-letters); put it right, then `grantex-beam replay` them.",
    ),
    State.RETRYING: ("An attempt failed, and is made again.", "Nothing, unless it becomes `down`."),
    State.BEHIND: (
        "Events wait half a minute longer than they should, and nothing fails.",
        "If the lag grows: the service is slow, or its requests carry too few events: see their time.",
    ),
    State.DOWN: (
        "Three attempts failed one after the other; it is probed with one batch at a time.",
        "Nothing here. If it lasts, see the service's own status, and what stands in between.",
    ),
    State.NEEDS_YOU: (
        "It does not heal by itself: a key, a right, an address, a setting.",
        "Do what the sentence says; it is one of [the messages](#the-messages). All is delivered afterwards.",
    ),
    State.RESTARTING: (
        "Its lane stopped on an error that nobody foresaw, and starts again.",
        "If it comes again: the log has the traceback once; report it.",
    ),
    State.REMOVED: (
        "This run does not have it, and the journal keeps events for it.",
        "Give its flags again, or `--forget_destination=NAME` to let them go.",
    ),
    State.UNBALANCED: (
        "Received is not the sum of delivered, dead letters, filtered and pending: a fault of ours.",
        "Keep a copy of `--state_dir`, report it, and let `grantex-beam reconcile` say what is where.",
    ),
}
# The same of the first line of the page, where it is about the whole run.
RUN: Mapping[str, tuple[str, str]] = {
    "The feed is not connected: events published now may be missed.": (
        "No stream is open.",
        "See why each connection waits: [the feed's messages](#the-feed).",
    ),
    "The feed is not read, as the journal is full: events published now may be missed.": (
        "`--journal_max_bytes`, or the disk, is full.",
        "Bring the slow destination back, or make room: [GrantexJournalFull](#grantexjournalfull).",
    ),
    "Standing by, and could not take over now:": (
        "The second process would not be able to deliver, and says why.",
        "Put that right now: the next restart of the first one would be a gap.",
    ),
    "Nothing newer is proven:": (
        "The ledger could not be read for ten minutes.",
        "As [GrantexProofOld](#grantexproofold).",
    ),
    "events are missing": (
        "The service's ledger has them, nobody received them.",
        "As [GrantexEventsMissing](#grantexeventsmissing).",
    ),
}
# Cause words of dead letters, as in `grantex_dead_letters_total{cause}` and in `cause` of each line.
CAUSES: Mapping[str, tuple[str, str]] = {
    "feed_gap": (
        "No event: an interval that no stream heard, with its bounds and the reason.",
        "`grantex-beam reconcile` for that time says what fell into it.",
    ),
    "missing": (
        "The ledger has it, nobody received it; id, type and time, no payload.",
        "As [GrantexEventsMissing](#grantexeventsmissing).",
    ),
    "frame_too_large": (
        "An event above 10 MiB; its beginning is kept. It is a gap as well.",
        "Ask the service's owner: it should not be that large.",
    ),
    "not_json": ("The feed carried a line that is no JSON.", "Nothing; it is kept as it came."),
    "not_utf8": ("The feed carried bytes that are no text.", "Nothing; it is kept as it came."),
    "no_id": ("JSON without an `id`.", "Nothing; it is kept as it came."),
    "id_conflict": (
        "The same id as an earlier event, with other bytes; the first ones were delivered.",
        "Tell the service's owner; compare both.",
    ),
    "in_doubt": (
        "A damaged journal does not know any more whether it was delivered.",
        "Look for its id there; `replay --force=true` sends it again.",
    ),
    "journal_damaged": ("A dead letter of the feed was lost with a damaged journal.", "Nothing can be done."),
    "too_large": (
        "Larger than the destination takes, alone.",
        "Raise the destination's limit (Kafka: the topic's `max.message.bytes`), then replay.",
    ),
    "too_old": (
        "Datadog would drop it, and `--datadog_too_old=dead_letter` is set.",
        "Nothing, or `--datadog_too_old=tag` and replay.",
    ),
    "id_too_long": ("Its id has no room in a message's attributes (Pub/Sub).", "Nothing."),
    "invalid_row": (
        "BigQuery refuses the row; the reason follows.",
        "Compare the table's columns with `--bigquery_schema`, then replay.",
    ),
    "invalid": ("The broker refuses the message; the reason follows.", "Put that right, then replay."),
    "hec_": (
        "With HEC's code behind it (`hec_6`, `hec_12`, `hec_13`, `hec_15`): Splunk refuses the event.",
        "Its words say why; put that right, then replay.",
    ),
    "datadog_400": ("Datadog refuses the log; its words follow.", "Put that right, then replay."),
    "refused": (
        "The service refuses it while it takes others; its words follow.",
        "Put that right, then replay.",
    ),
    "rejected": ("A destination of your own gave no cause word; its words follow.", "See its code."),
    "not_delivered": (
        "A job on a cluster was drained while this destination took nothing.",
        "Replay, once it is back.",
    ),
}
# Words of a start that ends, the exit code, and what to do. Each is in the program's own text.
STARTS: Mapping[str, tuple[int, str]] = {
    "is in use by another grantex-beam": (
        2,
        "Stop that process, or give this one `--standby=true` or a `--state_dir` of its own.",
    ),
    "was written by another version of this program": (
        2,
        "Start the later version again: a journal goes forward only ([upgrade.md](upgrade.md)).",
    ),
    "holds the journal of another": (
        2,
        "The key is another account's, or the URL another service's: choose another `--state_dir`.",
    ),
    "is on a network file system": (2, "Choose a directory on a disk of this machine."),
    "both must be given the same": (2, "Give the standby the same `--feed_url` and key as the first."),
    "cannot write in": (2, "Let this program's user write there; full disks and locks exit 1."),
    "and a later start can work": (1, "Start again, or let systemd do it: what was in the way passes."),
    "the journal is damaged: start again": (
        1,
        "Start again: it is repaired, the damaged file is kept aside, and what is lost is counted.",
    ),
}


def slug(text: str) -> str:
    """The anchor of a heading or entry: as GitHub makes it of one in these letters."""
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-")


def url(name: str) -> str:
    """Where an alert's entry is, by the alert's or the detection's name."""
    return f"{PAGE}#{slug(name)}"


def page() -> str:
    """The text of docs/runbook.md."""
    parts = [INTRODUCTION, *_alerts(), *_page(), *_messages(), *_causes(), *_starts()]
    return "\n".join(parts)


def _alerts() -> Iterator[str]:
    yield "## Alerts about the job\n\nOf `templates/packs/prometheus/grantex_beam.rules.yml`.\n"
    for one in CATALOGUE:
        for rule in one.rules:
            yield _rule(rule, one.filled(rule.expr))
    yield "## Alerts about the service\n\nOf `templates/packs/prometheus/grantex_service.rules.yml`.\n"
    for rule in SERVICE_RULES:
        yield _rule(rule, rule.expr)
    yield (
        "## Alerts about events\n\nOf Splunk and Datadog, by these titles; [packs.md](packs.md) has their "
        "thresholds and queries.\n"
    )
    for one in CATALOGUE:
        if one.alerts and not one.rules:
            yield _detection(one)


def _rule(rule: Rule, expr: str) -> str:
    return (
        f"### {rule.alert}\n\n{_filled_in(rule.summary)} ({rule.severity}; when `{expr}`"
        f"{'' if rule.lasts == '0m' else f' for {rule.lasts}'})\n\n**Do**: {rule.todo}\n"
    )


def _filled_in(summary: str) -> str:
    """A summary for readers, without Prometheus' templates."""
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"*\1*", summary)


def _detection(one: Detection) -> str:
    return f"### {one.name}\n\n**{one.title}** ({one.severity}). {one.why}\n\n**Do**: {one.todo}\n"


def _page() -> Iterator[str]:
    yield "## What the page says\n\n### A destination\n"
    yield "| state | level | what it means | do |\n|---|---|---|---|"
    for state, (means, todo) in STATES.items():
        yield f"| {_anchor('state', state.value)}{state.value} | {LEVELS[state].value} | {means} | {todo} |"
    yield f"\n`{Level.WATCH.value}` is for whoever looks; `{Level.TROUBLE.value}` is worth a call.\n"
    yield "### A stream\n\n| what the page says |\n|---|"
    for phase in Phase:
        yield f"| {_anchor('stream', phase.name)}{_of_stream(ConnectionStatus(phase=phase))} |"
    for among in (ConnectionState.SUSPECT, ConnectionState.REPLACING):
        told = _of_stream(ConnectionStatus(phase=Phase.LIVE, state=among))
        yield f"| {_anchor('stream', among.name)}{told} |"
    yield "\nA stream that waits says why: [the feed's messages](#the-feed).\n"
    yield "### The first line\n\n| words | what it means | do |\n|---|---|---|"
    for words, (means, todo) in RUN.items():
        yield f"| {words} | {means} | {todo} |"
    yield ""


def _of_stream(status: ConnectionStatus) -> str:
    return of_connection(status).removesuffix(": ") + "."


def _messages() -> Iterator[str]:
    yield (
        "## The messages\n\nIn the log, on the page and of `check`. {names} stand for what differs. What "
        "heals by itself is tried again with growing waits; what needs a person is probed with one batch at "
        "a time until somebody has done what the last column says.\n"
    )
    yield "### The feed\n\n| seen | message | do |\n|---|---|---|"
    for key, trouble in FEED.items():
        row = (f"{_anchor('feed', key)}{trouble.seen}", trouble.says, trouble.do or HEALS)
        yield f"| {' | '.join(row)} |"
    yield ""
    for title, section in ADVICE.items():
        yield f"### {title}\n\n| seen | message | do |\n|---|---|---|"
        told: set[tuple[str, str, str]] = set()
        for key, each in section.items():
            if (row := (each.seen, each.what.removeprefix(": "), each.do or HEALS)) in told:
                continue
            told.add(row)
            yield f"| {_anchor(title.partition(' (')[0], key)}{' | '.join(row)} |"
        yield ""


def _causes() -> Iterator[str]:
    yield (
        "## Dead letters\n\nEach has a cause, a word and then details: in `grantex_dead_letters_total` "
        "and in `cause` of each line of `<state_dir>/dead_letters`. `grantex-beam replay` sends them again: "
        "[operate.md](operate.md#replay).\n\n| cause | what it is | do |\n|---|---|---|"
    )
    for word, (means, todo) in CAUSES.items():
        yield f"| {_anchor('cause', word)}`{word}` | {means} | {todo} |"
    yield ""


def _starts() -> Iterator[str]:
    yield (
        "## A start that ends\n\nExit code 0: drained. 1: start again. 2: a setting is wrong, a line "
        "for each with what would be right. 3: the preflight or `check` did not pass, with what to do: [the "
        "messages](#the-messages). What is said besides:\n\n| words | exit code | do |\n|---|---|---|"
    )
    for words, (code, todo) in STARTS.items():
        yield f"| … {words} … | {code} | {todo} |"
    yield ""


def _anchor(section: str, key: str) -> str:
    return f'<a id="{slug(f"{section}-{key}")}"></a>'
