"""A load balancer in front of practice indexers: sticky by cookie, as long as it keeps to it."""

from __future__ import annotations

import itertools
import uuid
from typing import Literal

# "steady": the cookie is set once for each indexer, and again only with another one, as most do. "renewed":
# with every answer another value for the same indexer, as AWS's Application Load Balancer does. "none": no
# cookie, each request goes to the next indexer.
Stickiness = Literal["steady", "renewed", "none"]
NAMES = {"steady": "LB", "renewed": "AWSALB"}


class Balancer:
    """Chooses an indexer for each request. `down` are those that it does not send to."""

    def __init__(self, indexers: int, stickiness: Stickiness) -> None:
        self._indexers = indexers
        self._stickiness = stickiness
        self._turns = itertools.count()
        self._bound: dict[str, int] = {}
        self.down: set[int] = set()

    def choose(self, cookies: str) -> tuple[int, str]:
        """The indexer for a request with this `Cookie` header, and a `Set-Cookie` value or ""."""
        name = NAMES.get(self._stickiness, "")
        if self._indexers == 1 or not name:
            return self._next(), ""
        given = dict(part.strip().partition("=")[::2] for part in cookies.split(";"))
        bound = self._bound.get(given.get(name, ""))
        known = bound is not None and bound not in self.down
        indexer = bound if bound is not None and known else self._next()
        if known and self._stickiness == "steady":
            return indexer, ""
        value = uuid.uuid4().hex
        self._bound[value] = indexer
        return indexer, f"{name}={value}; Path=/"

    def forget(self) -> None:
        """Lose every binding: who comes back with a cookie is bound anew, to the next indexer."""
        self._bound.clear()

    def _next(self) -> int:
        up = [number for number in range(self._indexers) if number not in self.down]
        return up[next(self._turns) % len(up)] if up else 0
