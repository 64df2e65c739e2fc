"""What was tried and what came of it, for a person (a table) and for a program (JSON)."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from pipelines.preflight import UNTRIED
from transforms.preflight import Finding
from transforms.secret import redact
from transforms.write.advice import parted

SIGNS = {True: "ok", False: "FAILED", None: "UNKNOWN"}
WARNING = "warning"


class Tried(msgspec.Struct):
    """One line of the table. `result`: ok, warning, FAILED, UNKNOWN or untried; `cause`: what happened, `do`:
    what to do about it, `note`: what else was seen or is left behind."""

    name: str
    what: str
    result: str
    cause: str
    do: str
    note: str


class Report(msgspec.Struct):
    """passed: everything that was tried is well, but for warnings."""

    passed: bool
    tried: list[Tried]


def report(found: Mapping[str, Sequence[Finding]]) -> Report:
    """`found` by the name of what was tried; no secret is in it."""
    tried = [_tried(name, each) for name, several in found.items() for each in several]
    return Report(not any(each.result in (SIGNS[False], SIGNS[None]) for each in tried), tried)


def _tried(name: str, found: Finding) -> Tried:
    cause, do = parted(redact(found.cause))
    result = WARNING if found.passed and cause else SIGNS[found.passed]
    result = "untried" if found == UNTRIED else result
    return Tried(name, found.what, result, cause, do, redact(found.note))


def as_json(report: Report) -> str:
    """One object, for a program."""
    return msgspec.json.encode(report).decode()


def table(report: Report, width: int | None = None) -> str:
    """A line each, and how many are well; on a terminal no wider than that.

    width: of the lines; None takes the terminal's, and where there is none a finding is one line.
    """
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    columns = [max((len(getattr(each, name)) for each in report.tried), default=0) for name in COLUMNS]
    lines = [line for each in report.tried for line in _lines(each, columns, width)]
    return "\n".join([*lines, "", summary(report)])


COLUMNS = ("result", "name", "what")
LEAST_TEXT = 40  # characters in the last column of a narrow terminal: below that it has lines of its own


def _lines(each: Tried, columns: Sequence[int], width: int) -> Iterator[str]:
    head = "  ".join(getattr(each, name).ljust(size) for name, size in zip(COLUMNS, columns, strict=True))
    said = [part for part in (each.cause, each.do and f"To do: {each.do}", each.note) if part]
    if not width:
        yield f"{head}  {' '.join(said)}".rstrip()
        return
    beside = width - len(head) - 2 >= LEAST_TEXT
    indent = " " * (len(head) + 2 if beside else columns[0] + 2)
    texts = [
        line
        for part in said
        for line in textwrap.wrap(part, max(20, width - len(indent)), break_on_hyphens=False)
    ]
    if beside and texts:
        head = f"{head}  {texts.pop(0)}"
    yield head.rstrip()
    yield from (f"{indent}{text}" for text in texts)


def summary(report: Report) -> str:
    """The last line."""
    counts = Counter(each.result for each in report.tried)
    said = [
        f"{counts['FAILED']} failed" if counts["FAILED"] else "",
        f"of {counts['UNKNOWN']} nothing could be told" if counts["UNKNOWN"] else "",
        f"{counts[WARNING]} with a warning" if counts[WARNING] else "",
        f"{counts['untried']} that cannot be tried" if counts["untried"] else "",
    ]
    bad = ", ".join(part for part in said if part)
    return f"{len(report.tried)} tried, {counts['ok']} ok{f', {bad}' if bad else ''}."
