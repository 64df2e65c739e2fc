"""What the management port of a practice Splunk manages: indexes, HEC tokens, saved searches."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Protocol

from pipelines.local.practice.atom import Entry
from pipelines.local.practice.hec_tokens import Token
from pipelines.local.practice.splunk import PracticeSplunk

Form = Mapping[str, list[str]]


class Bad(Exception):
    """Splunk refuses this with the status and says the message."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Collection(Protocol):
    """Things with names. `create`, `update` and `delete` raise Bad."""

    path: str

    def entries(self) -> list[Entry]:
        """All of them."""

    def named(self, name: str) -> str:
        """The title of what a path calls `name`."""

    def create(self, name: str, form: Form) -> None:
        """Make another one."""

    def update(self, name: str, form: Form) -> None:
        """Change one that is there."""

    def delete(self, name: str) -> None:
        """Remove one that is there."""


class Indexes:
    """The indexes that HEC may write to."""

    path = "data/indexes"

    def __init__(self, splunk: PracticeSplunk) -> None:
        self._splunk = splunk
        self._fields: dict[str, dict[str, str]] = {}

    def entries(self) -> list[Entry]:
        common = {"disabled": "0", "datatype": "event", "totalEventCount": "0"}
        return [
            Entry(name, {**common, **self._fields.get(name, {})}) for name in sorted(self._splunk.indexes)
        ]

    def named(self, name: str) -> str:
        return name

    def create(self, name: str, form: Form) -> None:
        if not re.fullmatch(r"[a-z0-9_][a-z0-9_-]*", name):
            raise Bad(400, f"Index name={name} must be lower-case letters, digits, _ and -")
        self._splunk.indexes.add(name)
        self.update(name, form)

    def update(self, name: str, form: Form) -> None:
        self._fields.setdefault(name, {}).update({key: values[0] for key, values in form.items()})

    def delete(self, name: str) -> None:
        self._splunk.indexes.discard(name)
        self._fields.pop(name, None)


class HecTokens:
    """The tokens of HEC; their titles begin with http://, a path may leave that out."""

    path = "data/inputs/http"

    def __init__(self, splunk: PracticeSplunk) -> None:
        self._splunk = splunk

    def entries(self) -> list[Entry]:
        return [Entry(f"http://{token.name}", _fields(token)) for token in self._splunk.tokens]

    def named(self, name: str) -> str:
        return name if name.startswith("http://") else f"http://{name}"

    def create(self, name: str, form: Form) -> None:
        token = Token(name=name.removeprefix("http://"))
        self._change(token, form)
        self._splunk.tokens.append(token)

    def update(self, name: str, form: Form) -> None:
        self._change(self._token(name), form)

    def delete(self, name: str) -> None:
        self._splunk.tokens.remove(self._token(name))

    def _token(self, name: str) -> Token:
        return next(token for token in self._splunk.tokens if f"http://{token.name}" == name)

    def _change(self, token: Token, form: Form) -> None:
        index = form.get("index", [token.index])[0]
        allowed = [one for text in form.get("indexes", []) for one in text.split(",") if one]
        for one in (index, *allowed):
            if one not in self._splunk.indexes:
                raise Bad(400, f"Unknown index {one}")
        token.index = index
        token.indexes = allowed or token.indexes
        token.value = form.get("token", [token.value])[0]
        token.acknowledges = _flag(form, "useACK", token.acknowledges)
        token.disabled = _flag(form, "disabled", token.disabled)


class SavedSearches:
    """Searches that are kept, and nothing but kept."""

    path = "saved/searches"

    def __init__(self) -> None:
        self._fields: dict[str, dict[str, str]] = {}

    def entries(self) -> list[Entry]:
        common = {"disabled": "0", "is_scheduled": "0"}
        return [Entry(name, {**common, **fields}) for name, fields in sorted(self._fields.items())]

    def named(self, name: str) -> str:
        return name

    def create(self, name: str, form: Form) -> None:
        self._check(form)
        self._fields[name] = {}
        self.update(name, form)

    def update(self, name: str, form: Form) -> None:
        self._check(form)
        self._fields[name].update({key: values[0] for key, values in form.items()})

    def delete(self, name: str) -> None:
        del self._fields[name]

    def _check(self, form: Form) -> None:
        if not form.get("search", [""])[0].strip():
            raise Bad(400, 'Argument "search" is required: Cannot set search to be empty.')


def _fields(token: Token) -> dict[str, str | list[str]]:
    return {
        "token": token.value,
        "index": token.index,
        "indexes": list(token.indexes),
        "useACK": str(int(token.acknowledges)),
        "disabled": str(int(token.disabled)),
    }


def _flag(form: Form, name: str, default: bool) -> bool:
    return form[name][0] in ("1", "true", "True") if name in form else default
