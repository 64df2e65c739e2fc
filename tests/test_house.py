"""The house keeps its walls: who may import whom, how long a room may be, names that are gone for good."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("house")  # on one worker, which reads each file once
ROOT = Path(__file__).parents[1]
LONGEST = 450  # lines; most rooms have 100 to 400
# Imports inside a function that would close a circle, as (who, whom). Writers are imported when they are
# opened, since boto3, gRPC and Arrow take too long for --help; a secret of Google's, when it is read, by the
# client that itself needs secrets.
LAZY = {
    ("transforms.write.s3.destination", "transforms.write.s3.writer"),
    ("transforms.write.bigquery.destination", "transforms.write.bigquery.insert_all"),
    ("transforms.write.bigquery.destination", "transforms.write.bigquery.storage_write"),
    ("transforms.secret", "transforms.way_out"),
    ("transforms.secret", "transforms.write.google"),
}
# What a file, a class or a message was called before it got a name that says what it is.
FILES = {"aftermath", "standing", "shelf", "pace", "surroundings", "slots", "atom", "unsplit", "lean_beam"}
FILES |= {"reading", "wire", "streams"}
CLASSES = {"Row", "How", "Sorted", "Book"}
CLASSES |= {"Arrival", "Open", "Sealed", "Flight", "Memory", "Parcel"}
WORDS = ("when this is mended", "be it at zero", "the peer", "stray signs", "opened anew", "is given apart")

NOT_IMPORTED = ("TYPE_CHECKING", "__name__ == '__main__'")

Module = str


@functools.cache
def rooms() -> Mapping[Module, Path]:
    """Every module of the product."""
    found = (path for package in ("pipelines", "transforms") for path in (ROOT / package).rglob("*.py"))
    return {name(path): path for path in found}


def name(path: Path) -> Module:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path) -> Sequence[tuple[Module, int]]:
    """Modules of the product that a file imports when it runs, at once or later, with the line."""
    return list(_imported(path))


def _imported(path: Path) -> Iterator[tuple[Module, int]]:
    for node in running(tree(path)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for each in names:
            found = each if each in rooms() else each.rpartition(".")[0]
            if found in rooms():
                yield found, node.lineno


def running(node: ast.AST) -> Iterator[ast.AST]:
    """A file's statements without what only a type checker reads or a program of its own does."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):  # nine tenths of a file, and nothing is imported in one
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in (
            "TYPE_CHECKING",
            "__name__ == '__main__'",
        ):
            continue
        yield child
        yield from running(child)


def imports_of(inside: str, forbidden: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {found}"
        for module, path in rooms().items()
        if module.startswith(inside)
        for found, line in imported(path)
        if found.startswith(forbidden)
    ]


@pytest.mark.parametrize(
    ("inside", "forbidden"), [("transforms", "pipelines"), ("transforms.write", "transforms.feed")]
)
def test_what_is_below_does_not_know_what_is_above(inside: str, forbidden: str) -> None:
    assert imports_of(inside, forbidden) == []


def test_there_is_no_circle_but_the_lazy_ones() -> None:
    """Of imports that run. What only a type checker reads is not counted: `Secret`s name the way out."""
    graph = {module: {found for found, _ in imported(path)} for module, path in rooms().items()}
    for who, whom in LAZY:
        assert whom in graph[who], f"{who} no longer imports {whom}: take it from the list"
        assert whom not in at_once(rooms()[who]), f"{who} imports {whom} at once"
        graph[who].discard(whom)
    assert [sorted(one) for one in strongly_connected(graph) if len(one) > 1] == []


def at_once(path: Path) -> set[Module]:
    """What a file imports when it is imported itself."""
    later = [node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef)]
    lines = {line for node in later for line in range(node.lineno, (node.end_lineno or 0) + 1)}
    return {found for found, line in imported(path) if line not in lines}


def strongly_connected(graph: Mapping[Module, set[Module]]) -> list[set[Module]]:
    """Groups of modules that all reach each other."""
    reached = {module: reach(graph, module) for module in graph}
    groups: list[set[Module]] = []
    for module in graph:
        if not any(module in group for group in groups):
            groups.append({other for other in reached[module] if module in reached[other]} | {module})
    return groups


def reach(graph: Mapping[Module, set[Module]], start: Module) -> set[Module]:
    seen: set[Module] = set()
    left = [start]
    while left:
        for found in graph[left.pop()] - seen:
            seen.add(found)
            left.append(found)
    return seen


def test_circles_are_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set[str]()}
    assert [one for one in strongly_connected(graph) if len(one) > 1] == [{"b", "c"}]


def test_no_room_is_longer_than_one_sitting() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in rooms().values()}
    assert {str(path.relative_to(ROOT)): long for path, long in lengths.items() if long > LONGEST} == {}


def test_names_that_are_gone_do_not_return() -> None:
    found = [str(path.relative_to(ROOT)) for path in rooms().values() if path.stem in FILES]
    for path in rooms().values():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef) and node.name in CLASSES:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno} class {node.name}")
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                words = " ".join(node.value.split())
                found += [f"{path.relative_to(ROOT)}:{node.lineno} {one}" for one in WORDS if one in words]
    assert found == []
