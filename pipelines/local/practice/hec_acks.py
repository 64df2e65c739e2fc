"""Indexer acknowledgement of one indexer: ids by channel, and what a poll is told."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from pipelines.local.practice.hec import Refused


@dataclass
class _Channel:
    next_id: int = 0
    due: dict[int, float] = field(default_factory=dict)  # ids never answered true, and when they may be


class Acknowledgements:
    """What one indexer knows; like the real one's, it lives in memory alone.

    Ids count from 0 in each channel. An id that has once been answered true is forgotten, so that it is
    false ever after, whether or not that answer arrived. Times are monotonic seconds.
    """

    def __init__(self) -> None:
        self._channels: dict[str, _Channel] = {}
        self._unsafe: list[tuple[float, Sequence[Any]]] = []

    def take(self, channel: str, events: Sequence[Any], now: float, seconds: float) -> int:
        """The id under which `events` are acknowledged, `seconds` from now."""
        known = self._channels.setdefault(channel, _Channel())
        ack_id = known.next_id
        known.next_id += 1
        known.due[ack_id] = now + seconds
        self._unsafe = [one for one in self._unsafe if one[0] > now]
        self._unsafe.append((now + seconds, events))
        return ack_id

    def poll(self, channel: str, ids: Sequence[int], now: float) -> Mapping[str, bool]:
        """The answer for each id: true once, after its time has come, and false otherwise."""
        due = self._channels.setdefault(channel, _Channel()).due
        answer = {}
        for ack_id in ids:
            indexed = due.get(ack_id, math.inf) <= now
            if indexed:
                del due[ack_id]
            answer[str(ack_id)] = indexed
        return answer

    def crash(self, now: float) -> list[Any]:
        """Begin anew, as after `kill -9`; returns the events that were not indexed by then and are lost."""
        lost = [event for due, events in self._unsafe if due > now for event in events]
        self._channels, self._unsafe = {}, []
        return lost


def judge_channel(headers: Mapping[str, str], query: str) -> str:
    """The channel of a request. Raises Refused."""
    channel = headers.get("x-splunk-request-channel") or "".join(parse_qs(query).get("channel", [])[:1])
    if not channel:
        raise Refused(10)
    try:
        return str(uuid.UUID(channel))
    except ValueError:
        raise Refused(11) from None


def ids_in(body: bytes) -> list[int]:
    """The ids that a poll asks for, in `{"acks": [0, 1]}`. Raises Refused."""
    try:
        asked = json.loads(body)["acks"]
    except (ValueError, KeyError, TypeError):
        raise Refused(6) from None
    if not isinstance(asked, list) or not all(type(one) is int and one >= 0 for one in asked):
        raise Refused(6)
    return asked
