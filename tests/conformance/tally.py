"""Destination and fault against what became of the events: the table that a run of the suite ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.conformance.case import Case
from tests.conformance.lane import Lane
from transforms.event import Event

HEAD = ("destination", "fault", "delivered", "dead-lettered", "repeated", "lost")


@dataclass(frozen=True)
class Row:
    """What became of the events that were received while a destination suffered a fault."""

    destination: str
    fault: str
    delivered: int
    dead_lettered: int
    repeated: int  # arrivals beyond the first of each id
    lost: int


@dataclass
class Tally:
    """All rows of a run."""

    rows: list[Row] = field(default_factory=list)

    def account(
        self, case: Case, fault: str, received: Sequence[Event], *lanes: Lane, in_doubt: int = 0
    ) -> Row:
        """Compare what the service holds, id by id, with what was received and with what the lanes say.

        in_doubt: events that the last life before a crash may have delivered without knowing.
        """
        ids = {event.id for event in received}
        there = case.ids()
        dead = {event_id for lane in lanes for event_id in lane.dead}
        delivered = {event_id for lane in lanes for event_id in lane.delivered}
        repeated = sum(there.values()) - len(there)
        row = Row(case.name, fault, len(there), len(dead), repeated, len(ids - there.keys() - dead))
        self.rows.append(row)
        assert there.keys() <= ids, "something arrived that nobody sent"
        assert row.lost == 0, sorted(ids - there.keys() - dead)[:10]
        assert there.keys() == ids - dead, "what arrived and what is dead are not apart"
        books = lanes[-1].books
        said = (books.delivered, books.dead_lettered, books.pending)
        assert said == (len(ids - dead), len(dead), 0), "the books do not tell what became of all"
        # What a life delivered just before it crashed is recorded as it closes, and nobody reads a receipt.
        assert delivered | dead == ids or len(lanes) > 1, "receipts and dead letters do not tell all"
        assert not delivered & dead
        unknown = sum(lane.status.unknown for lane in lanes)
        excused = 0 if case.once else unknown
        if in_doubt and not case.once_over_crashes:
            excused += in_doubt
        assert repeated <= excused, f"{repeated} repeats, of which {excused} were counted as possible"
        return row

    def table(self) -> list[str]:
        """The rows as lines of Markdown; rows of the same destination and fault are added up."""
        sums: dict[tuple[str, str], Counter[str]] = {}
        for row in self.rows:
            found = sums.setdefault((row.destination, row.fault), Counter())
            found.update(
                delivered=row.delivered, dead=row.dead_lettered, repeated=row.repeated, lost=row.lost
            )
        lines = [f"| {' | '.join(HEAD)} |", f"|{'---|' * len(HEAD)}"]
        for (destination, fault), found in sums.items():
            cells = [found[key] for key in ("delivered", "dead", "repeated", "lost")]
            lines.append(f"| {destination} | {fault} | {' | '.join(map(str, cells))} |")
        return lines
