"""What a practice Splunk keeps in its apps, as splunkd's REST has it: .conf stanzas, searches, views."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree import ElementTree

Form = Mapping[str, list[str]]
# Arguments of saved/searches (REST API reference, "saved/searches"), as far as they are about a search, its
# schedule and its alert; names of savedsearches.conf are not among them where they are others.
OF_A_SEARCH = re.compile(
    r"search|description|disabled|is_scheduled|is_visible|cron_schedule|actions|alert_type|alert_comparator"
    r"|alert_threshold|alert_condition|(action|alert|args|dispatch|display|request)\..+"
)
BUILT_IN = ("search", "splunk_httpinput", "system")


@dataclass(frozen=True)
class Entry:
    """One thing in a collection; lists are lists of text."""

    title: str
    fields: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


class Bad(Exception):
    """Splunk refuses this with the status and says the message."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Stanzas:
    """Things with a name and settings, and nothing but kept. common: what each has besides."""

    def __init__(self, path: str, common: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.kept: dict[str, dict[str, str]] = {}
        self._common = common or {}

    def entries(self) -> list[Entry]:
        return [Entry(name, {**self._common, **fields}) for name, fields in sorted(self.kept.items())]

    def named(self, name: str) -> str:
        return name

    def create(self, name: str, form: Form) -> None:
        self.check(form)
        self.kept[name] = {}
        self.update(name, form)

    def update(self, name: str, form: Form) -> None:
        self.check(form)
        self.kept[name].update({key: values[0] for key, values in form.items()})

    def delete(self, name: str) -> None:
        del self.kept[name]

    def check(self, form: Form) -> None:
        """Raises Bad for what Splunk would not keep."""


class SavedSearches(Stanzas):
    def __init__(self) -> None:
        super().__init__("saved/searches", {"disabled": "0", "is_scheduled": "0"})

    def check(self, form: Form) -> None:
        for name in form:
            if not OF_A_SEARCH.fullmatch(name):
                raise Bad(400, f'Argument "{name}" is not supported by this handler.')
        if "search" in form and not form["search"][0].strip():
            raise Bad(400, 'Argument "search" is required: Cannot set search to be empty.')

    def create(self, name: str, form: Form) -> None:
        if "search" not in form:
            raise Bad(400, 'Argument "search" is required: Cannot set search to be empty.')
        super().create(name, form)


class Views(Stanzas):
    def __init__(self) -> None:
        super().__init__("data/ui/views", {"eai:type": "views"})

    def check(self, form: Form) -> None:
        try:
            ElementTree.fromstring(form["eai:data"][0])
        except (KeyError, ElementTree.ParseError):
            raise Bad(400, "Cannot parse view data: it is no XML") from None


class Apps(Stanzas):
    def __init__(self) -> None:
        super().__init__("apps/local", {"disabled": "0"})
        self.kept.update({name: {"label": name} for name in BUILT_IN})


def knowledge() -> Sequence[Stanzas]:
    """A collection of each kind, those of .conf files among them."""
    paths = [f"configs/conf-{name}" for name in ("macros", "props", "eventtypes", "tags", "transforms")]
    paths += ["storage/collections/config", "data/transforms/lookups"]
    return [Apps(), SavedSearches(), Views(), *map(Stanzas, paths)]
