"""Events in the service's own shape, and what each detection must find in them: SQL here, SPL on a Splunk.

Every detection has what it must find, what it must not, and the traps: repeats of the same event, budgets
that are reported on every debit, revocations that name no agent, a burst that lies across two fixed windows.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from transforms import ulid
from transforms.event import Batch, Event

HOUR = 3600.0
DAY = 24 * HOUR
PRINCIPAL = "user-123"

Row = tuple[Any, ...]


@dataclass
class Cases:
    """now: seconds since the epoch that the queries' own clock must be close to.
    arrays: scopes are always a list, as bqemulator needs it (BigQuery itself makes NULL of anything else).
    """

    now: float
    arrays: bool = False
    raws: list[bytes] = field(default_factory=list)
    _number: int = 0

    def __post_init__(self) -> None:
        self.start = math.floor(self.now / HOUR) * HOUR  # of this hour
        for name in ("grants", "budgets", "tokens", "scopes", "others", "odd"):
            getattr(self, f"_{name}")()

    def events(self) -> list[Event]:
        """As the feed's reader makes them, in the order of the stream."""
        found = [(json.loads(raw), raw) for raw in self.raws]
        return [Event(one["id"], one["type"], one["createdAt"], raw) for one, raw in found]

    # Making events

    def add(self, kind: str, at: float, repeats: int = 1, **data: Any) -> str:
        """An event at that time, delivered so many times."""
        self._number += 1
        event_id = _id(at, self._number)
        body = {"id": event_id, "type": kind, "createdAt": text(at), "data": data}
        self.raws += [json.dumps(body, separators=(",", ":")).encode()] * repeats
        return event_id

    def grant(self, grant: str, agent: str, at: float, principal: str = "user-1", **more: Any) -> None:
        scopes = more.pop("scopes", ["calendar:read"])
        data = {"grantId": grant, "agentId": agent, "principalId": principal, "scopes": scopes}
        self.add("grant.created", at, **data, expiresAt=text(at + DAY), **more)

    def token(self, grant: str, agent: str, at: float, principal: str = "user-1", repeats: int = 1) -> None:
        data = {"grantId": grant, "agentId": agent, "principalId": principal, "scopes": ["calendar:read"]}
        self.add("token.issued", at, repeats, tokenId=f"tok_{grant}", **data, expiresAt=text(at + DAY))

    def back(self, hours: float, seconds: float = 1200.0) -> float:
        """So many seconds into the hour that began `hours` before this one."""
        return self.start - hours * HOUR + seconds

    # What is in the stream

    def _grants(self) -> None:
        for number in range(12):  # a spike
            self.add("grant.revoked", self.back(3) + 20 * number, grantId=f"g_spike_{number}", cascade=False)
        for number in range(16):  # across two fixed windows of five minutes, eight in each
            self.add(
                "grant.revoked", self.back(5, 900 - 120 + 15 * number), grantId="g_across", cascade=False
            )
        for number in range(10):  # exactly ten are none
            self.add("grant.revoked", self.back(7) + 20 * number, grantId=f"g_ten_{number}", cascade=False)
        for number in range(6):  # six, each delivered twice
            self.add("grant.revoked", self.back(9) + 20 * number, 2, grantId=f"g_six_{number}", cascade=False)
        for number in range(14):  # fourteen over an hour
            self.add("grant.revoked", self.back(11, 60) + 240 * number, grantId="g_slow", cascade=False)
        self.grant("g_root", "ag_root", self.now - 40 * DAY, "user-root")
        self.grant("g_handed", "ag_first", self.now - 20 * DAY, "user-handed")
        self.token("g_handed", "ag_second", self.now - 2 * DAY, "user-handed")
        self.add("grant.revoked", self.back(13), 2, grantId="g_root", cascade=True)
        more: dict[str, Any] = {"cause": "user", "grantIds": ["g_handed", "g_a", "g_b"]}
        self.add("grant.revoked", self.back(14), grantId="g_handed", cascade=True, **more)
        self.add("grant.revoked", self.back(15), grantId="g_unheard_of", cascade=True)
        self.add("grant.revoked", self.back(15, 1300), grantId="g_root_2", cascade=False)
        self.add("grant.suspended", self.back(16), grantId="g_handed", cascade=False, cause="review")
        self.add("grant.resumed", self.back(16, 1500), 2, grantId="g_handed", cascade=False, cause="reviewed")
        for depth in (1, 2, 3, 5):
            more = {"delegationDepth": depth, "parentGrantId": "g_root"}
            self.grant(f"g_depth_{depth}", "ag_root", self.back(17) + depth, "user-root", **more)

    def _budgets(self) -> None:
        for number in range(3):  # every debit past 50 %
            self.add("budget.threshold", self.back(4) + number, grantId="g_root", pct=50, remaining="45.0000")
        for number in range(2):
            self.add("budget.threshold", self.back(3) + number, 2, grantId="g_root", pct=80, remaining="15.0")
        for at in (self.now - 3 * DAY, self.back(2)):  # not the first: that was three days ago
            self.add("budget.threshold", at, grantId="g_handed", pct=50, remaining="45.0000")
        for number in range(2):
            self.add("budget.exhausted", self.back(2) + number, 2, grantId="g_root", remaining="0")
        self.add("budget.exhausted", self.now - 3 * DAY, grantId="g_handed", remaining="0")

    def _tokens(self) -> None:
        for agent in ("ag_spike", "ag_fifty", "ag_twice", "ag_busy"):
            self.grant(f"g_{agent}", agent, self.now - 10 * DAY)
        for number in range(60):
            self.token("g_ag_spike", "ag_spike", self.back(6, 600) + number)
        for number in range(50):  # exactly fifty are none
            self.token("g_ag_fifty", "ag_fifty", self.back(6, 600) + number)
        for number in range(30):  # thirty, each delivered twice
            self.token("g_ag_twice", "ag_twice", self.back(6, 600) + number, repeats=2)
        for part in range(4):  # 51 again and again: that is usual for it
            for number in range(51):
                self.token("g_ag_busy", "ag_busy", self.back(8, 300 * part) + number)

    def _scopes(self) -> None:
        soon, long_ago = self.now - 600, self.now - 10 * DAY
        for agent in ("ag_old", "ag_same", "ag_again"):
            self.grant(f"g_{agent}", agent, long_ago, scopes=["a", "b"])
        self.grant("g_reach", "ag_old", soon, scopes=["a", "c"])
        self.grant("g_same_1", "ag_same", self.now - 20 * DAY, scopes=["c"])
        self.grant("g_same_2", "ag_same", soon, scopes=["c"])
        self.grant("g_again_1", "ag_again", self.now - 36 * DAY, scopes=["z"])
        self.grant("g_again_2", "ag_again", soon, scopes=["z"])
        self.grant("g_new_1", "ag_new", soon, "user-8", scopes=["x"])
        self.grant("g_new_2", "ag_new", soon + 60, "user-9", scopes=["y"])
        self.grant("g_away_1", "ag_away", self.now - 40 * DAY)
        self.grant("g_away_2", "ag_away", soon)

    def _others(self) -> None:
        self.anomaly = self.add("anomaly.detected", self.back(2), 2)
        more: dict[str, Any] = {"revokedGrants": 3, "anomalyCount": 5}
        self.revoked_by_service = self.add("anomaly.auto_revoked", self.back(2, 1300), **more)
        for principal, times in (
            ("user-burst", [10 * number for number in range(21)]),
            ("user-twenty", [10 * number for number in range(20)]),
            ("user-slow", [60 * number for number in range(30)]),
        ):
            for seconds in times:
                data: dict[str, Any] = {
                    "credentialId": "cred_1",
                    "principalId": principal,
                    "service": "mail",
                    "grantId": "g_v",
                }
                self.add("vault.credential.exchanged", self.back(4) + seconds, **data)
        self.grant("g_audit", "ag_root", self.back(20), PRINCIPAL)
        self.add("budget.exhausted", self.now - 2 * DAY, 2, grantId="g_audit", remaining="0")
        self.add("grant.revoked", self.back(18), grantId="g_audit", cascade=False)
        self.add("sso.login", self.back(18), connectionId="c", protocol="oidc", sessionId="s", email="a@b.c")

    def _odd(self) -> None:
        """What must not stop a view: no list where one should be, other shapes, times without a fraction."""
        at = self.back(19)
        if not self.arrays:
            odd: dict[str, Any] = {
                "grantId": "g_odd",
                "agentId": "ag_root",
                "principalId": "user-1",
                "scopes": "none",
            }
            self.add("token.issued", at, **odd)
        self.add("budget.threshold", at, grantId="g_odd", pct="a lot", remaining="1")
        for number, data in ((990001, ',"data":[1]'), (990002, "")):
            head = f'"id":"{_id(at, number)}","type":"of.tomorrow"'
            self.raws.append(f'{{{head},"createdAt":"{text(at)[:19]}Z"{data}}}'.encode())

    # What is to be found

    def expected(self) -> Mapping[str, tuple[tuple[str, ...], list[Row]]]:
        """By detection: these columns of its rows, sorted."""
        unheard: Row = ("g_unheard_of", None, None, None)
        found: dict[str, tuple[tuple[str, ...], list[Row]]] = {
            "revocation_spike": (
                ("hour", "revocations"),
                [(self.at(self.back(3, 0)), 12), (self.at(self.back(5, 0)), 16)],
            ),
            "cascade_revocation": (
                ("grant_id", "agent_id", "principal_id", "grants_revoked"),
                [
                    ("g_handed", "ag_second", "user-handed", 3),
                    ("g_root", "ag_root", "user-root", None),
                    unheard,
                ],
            ),
            "grant_suspended_or_resumed": (
                ("event_type", "grant_id", "agent_id", "cause"),
                [
                    ("grant.resumed", "g_handed", "ag_second", "reviewed"),
                    ("grant.suspended", "g_handed", "ag_second", "review"),
                ],
            ),
            "deep_delegation": (
                ("grant_id", "agent_id", "delegation_depth"),
                [("g_depth_3", "ag_root", 3), ("g_depth_5", "ag_root", 5)],
            ),
            "budget_exhausted": (
                ("grant_id", "agent_id", "principal_id", "first_at"),
                [("g_root", "ag_root", "user-root", self.at(self.back(2)))],
            ),
            "budget_nearing": (
                ("grant_id", "percent", "agent_id", "first_at"),
                [
                    ("g_root", 50, "ag_root", self.at(self.back(4))),
                    ("g_root", 80, "ag_root", self.at(self.back(3))),
                ],
            ),
            "token_issuance_spike": (("agent_id", "tokens"), [("ag_spike", 60)]),
            "unusual_scope": (("agent_id", "scope"), [("ag_again", "z"), ("ag_old", "c")]),
            "unknown_agent": (("agent_id", "principals"), [("ag_away", 1), ("ag_new", 2)]),
            "anomalies": (
                ("event_type", "event_id", "grants_revoked", "anomalies"),
                [
                    ("anomaly.auto_revoked", self.revoked_by_service, 3, 5),
                    ("anomaly.detected", self.anomaly, None, None),
                ],
            ),
            "vault_exchange_burst": (("principal_id", "exchanges"), [("user-burst", 21)]),
            "principal_audit": (
                ("event_type", "grant_id", "agent_id"),
                [
                    (kind, "g_audit", "ag_root")
                    for kind in ("budget.exhausted", "grant.created", "grant.revoked")
                ],
            ),
        }
        return {**found, **dict(self._reports())}

    def _reports(self) -> Iterator[tuple[str, tuple[tuple[str, ...], list[Row]]]]:
        """Counted once more, from the events themselves."""
        once = {one["id"]: one for one in map(json.loads, self.raws)}.values()
        newest = [one for one in once if moment(one) >= self.now - DAY]
        tokens = [one["data"]["agentId"] for one in newest if one["type"] == "token.issued"]
        counted = sorted(Counter(tokens).items())
        yield "top_agents", (("agent_id", "tokens"), [*counted])
        grants = [one["data"] for one in once if one["type"] == "grant.created" and self._within(one, 7)]
        agents = defaultdict(list)
        for each in grants:
            for scope in each["scopes"]:
                agents[scope].append(each["agentId"])
        rows = [(scope, len(every), len(set(every))) for scope, every in sorted(agents.items())]
        yield "scope_usage", (("scope", "grants", "agents"), rows)
        hours = Counter((self.at(moment(one) // HOUR * HOUR), one["type"]) for one in newest)
        rows = sorted((hour, kind, events) for (hour, kind), events in hours.items())
        yield "volume_by_type", (("hour", "event_type", "events"), rows)
        days: dict[str, list[Any]] = defaultdict(list)
        for one in map(json.loads, self.raws):
            if self._within(one, 35):
                days[text(moment(one))[:10]].append(one)
        rows = [
            (day, len({one["id"] for one in every}), repeats(every)) for day, every in sorted(days.items())
        ]
        yield "completeness_by_day", (("day", "events", "repeats"), rows)

    def _within(self, event: Mapping[str, Any], days: float) -> bool:
        return moment(event) >= self.now - days * DAY

    def at(self, seconds: float) -> str:
        """A time as rows are compared by: to the millisecond, in UTC."""
        return text(seconds)


def repeats(events: list[Any]) -> int:
    return len(events) - len({one["id"] for one in events})


def moment(event: Mapping[str, Any]) -> float:
    return datetime.fromisoformat(event["createdAt"].replace("Z", "+00:00")).timestamp()


def text(seconds: float) -> str:
    """RFC 3339 with milliseconds, as the service writes it."""
    millis = round(seconds * 1000)
    whole = datetime.fromtimestamp(millis // 1000, timezone.utc)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{millis % 1000:03d}Z"


def batches(events: Sequence[Event], size: int) -> Iterator[Batch]:
    """All of them, in order, at most `size` in each."""
    for start in range(0, len(events), size):
        yield Batch(events[start : start + size])


def _id(at: float, number: int) -> str:
    return ulid.unpack((int(at * 1000) << 80 | number).to_bytes(ulid.SIZE, "big"))
