"""Splunk's REST answers: Atom feeds of entries whose content is a dictionary, and messages for errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote
from xml.sax.saxutils import escape, quoteattr

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
SPACES = (
    'xmlns="http://www.w3.org/2005/Atom" xmlns:s="http://dev.splunk.com/ns/rest" '
    'xmlns:opensearch="http://a9.com/-/spec/opensearch/1.1/"'
)
ACL = {"app": "search", "owner": "nobody", "sharing": "app", "modifiable": "1", "removable": "1"}


@dataclass(frozen=True)
class Entry:
    """One thing in a collection; lists are lists of text."""

    title: str
    fields: Mapping[str, str | Sequence[str]] = field(default_factory=dict)


def feed(path: str, entries: Sequence[Entry], total: int) -> bytes:
    """The collection at `path` ("data/indexes"): these of `total` entries."""
    root = f"/services/{path}"
    parts = [
        f"{HEAD}<feed {SPACES}><title>{escape(path)}</title><id>{root}</id>",
        f'<link href="{root}/_new" rel="create"/><opensearch:totalResults>{total}</opensearch:totalResults>',
    ]
    parts += [_entry(path, entry) for entry in entries]
    return "".join([*parts, "</feed>"]).encode()


def message(text: str, kind: str = "ERROR") -> bytes:
    """What splunkd says of a refused request."""
    said = f'<msg type="{kind}">{escape(text)}</msg>'
    return f"{HEAD}<response><messages>{said}</messages></response>".encode()


def _entry(path: str, entry: Entry) -> str:
    slashes = entry.title.replace("/", "%2F")  # encoded twice, as splunkd does
    href = f"/servicesNS/{ACL['owner']}/{ACL['app']}/{path}/{quote(slashes, safe='')}"
    keys = "".join(_key(name, value) for name, value in entry.fields.items())
    access = "".join(_key(name, text) for name, text in ACL.items())
    acl = f'<s:key name="eai:acl"><s:dict>{access}</s:dict></s:key>'
    return (
        f"<entry><title>{escape(entry.title)}</title><id>{escape(href)}</id>"
        f'<updated>2026-03-01T12:00:00+00:00</updated><link href={quoteattr(href)} rel="alternate"/>'
        f'<content type="text/xml"><s:dict>{keys}{acl}</s:dict></content></entry>'
    )


def _key(name: str, value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        inside = escape(value)
    else:
        inside = "<s:list>" + "".join(f"<s:item>{escape(item)}</s:item>" for item in value) + "</s:list>"
    return f"<s:key name={quoteattr(name)}>{inside}</s:key>"
