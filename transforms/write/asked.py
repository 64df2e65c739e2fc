"""What of the events a destination asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transforms.event_types import TypeFilter, read_patterns
from transforms.setting import setting


@dataclass(frozen=True)
class Asked:
    """types: shell patterns of event types; one that begins with "!" excludes, and none at all is every type.

    An event that a destination does not ask for is filtered: it is no part of any batch.
    """

    types: tuple[str, ...] = setting(
        "Event types to send there, as shell patterns; ! in front excludes.",
        (),
        read=read_patterns,
        default_text="all",
        example="grant.*,!grant.revoked",
    )

    def type_filter(self) -> TypeFilter | None:
        """Tells which events are asked for; None when all are, which then costs nothing."""
        return TypeFilter(self.types) if self.types else None


ALL_TYPES = Asked()


def asked_for() -> Any:
    """A destination's field `asked`, whose parts are settings."""
    return setting("", ALL_TYPES)
