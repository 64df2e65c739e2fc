"""What of the events a destination asks for, and with what in them replaced."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from transforms.event_types import TypeFilter, read_patterns
from transforms.readers import names
from transforms.secret import Secret
from transforms.setting import setting, shared

_FIELD = re.compile(r"data(\.[^.]+)+")


LEAST_KEY = 16  # characters; a shorter one is found by trying


def read_fields(text: str) -> tuple[str, ...]:
    """Paths of fields between commas. Raises ValueError with what would be right."""
    found = names(text)
    if not all(map(_FIELD.fullmatch, found)):
        raise ValueError("must be fields of data, such as data.principalId or data.user.email")
    return found


@dataclass(frozen=True)
class Asked:
    """types: shell patterns of event types; one that begins with "!" excludes, and none at all is every type.

    pseudonymize: paths of fields whose values are replaced by pseudonyms under the pseudonym_key.

    An event that a destination does not ask for is filtered: it is no part of any batch.
    """

    types: tuple[str, ...] = setting(
        "Event types to send there, as shell patterns; ! in front excludes.",
        (),
        read=read_patterns,
        default_text="all",
        placeholder="TYPE,TYPE",
        example="grant.*,!grant.revoked",
    )
    pseudonymize: tuple[str, ...] = setting(
        "Fields of data whose values are replaced there by a keyed hash; see --pseudonym_key.",
        (),
        read=read_fields,
        placeholder="FIELD,FIELD",
        example="data.principalId,data.user.email",
    )
    pseudonym_key: Secret | None = shared("pseudonym_key", None)

    def type_filter(self) -> TypeFilter | None:
        """Tells which events are asked for; None when all are, which then costs nothing."""
        return TypeFilter(self.types) if self.types else None


ALL_TYPES = Asked()


def asked_for() -> Any:
    """A destination's field `asked`, whose parts are settings."""
    return setting("", ALL_TYPES)
