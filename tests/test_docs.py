"""What the documentation says is true: files are there, commands are understood, sums are right."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.doc_commands import SHELL, Snippet, aws_service, commands, faults, is_picture, snippets

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMED = re.compile(r"`((?:pipelines|transforms|tests|templates|docs)/[\w/.\-*]*)`")
LINKED = re.compile(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]*))?\)")
README_LINES = 150


def pages() -> list[str]:
    return [str(page.relative_to(ROOT)) for page in PAGES]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", pages())
def test_files_that_a_page_names_are_there(page: str) -> None:
    missing = [name for name in NAMED.findall(text_of(page)) if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing, f"{page} names what is not there"


def anchors(path: Path) -> set[str]:
    """As GitHub makes them of headings, and those that are written down."""
    text = path.read_text(encoding="utf-8")
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ +(.*)", text, re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", pages())
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    missing = []
    for link, anchor in LINKED.findall(text_of(page)):
        target = path.parent / link if link else path
        if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            missing.append(f"{link}#{anchor}")
    assert not missing, f"{page} links to what is not there"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, left = {ROOT / "README.md"}, [ROOT / "README.md"]
    while left:
        page = left.pop()
        for link, _ in LINKED.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            if target.suffix == ".md" and target.exists() and target not in reached:
                reached.add(target)
                left.append(target)
    assert {*PAGES} - reached == set()


def test_the_readme_is_short() -> None:
    assert len(text_of("README.md").splitlines()) <= README_LINES


def all_snippets() -> list[Snippet]:
    return [each for page in pages() for each in snippets(page)]


def ids(found: list[Snippet]) -> list[str]:
    return [each.where for each in found]


SHELLS = [each for each in all_snippets() if each.language in SHELL and not is_picture(each.text)]
OTHERS = [each for each in all_snippets() if each.language not in SHELL]


@pytest.mark.parametrize("snippet", SHELLS, ids=ids(SHELLS))
def test_commands_are_understood_by_who_is_to_run_them(snippet: Snippet) -> None:
    found = [*commands(snippet)]
    assert found, f"{snippet.where} holds no command"
    assert [fault for words in found for fault in faults(words)] == [], snippet.where


@pytest.mark.parametrize("snippet", SHELLS, ids=ids(SHELLS))
def test_a_shell_reads_them(snippet: Snippet) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=snippet.text, capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, f"{snippet.where}: {done.stderr}"


@pytest.mark.parametrize("snippet", OTHERS, ids=ids(OTHERS))
def test_other_snippets_are_what_they_say(snippet: Snippet) -> None:
    check = READERS[snippet.language]
    check(snippet.text)


def a_json(text: str) -> None:
    made = json.loads(text)
    if "Statement" in made:
        assert made["Version"] == "2012-10-17"
        for statement in made["Statement"]:
            assert statement["Effect"] in ("Allow", "Deny")
            actions = statement["Action"]
            for action in [actions] if isinstance(actions, str) else actions:
                assert_is_an_action(action)


def assert_is_an_action(action: str) -> None:
    """Of an AWS policy: an operation of the service as boto3 knows it; ListBucket is ListObjects there."""
    service, name = action.split(":")
    known = set(aws_service(service).operation_names)
    assert name in known | {"ListBucket"}, action


def a_yaml(text: str) -> None:
    """Settings of the job are read as --config reads them, also those of the chart."""
    import yaml  # type: ignore[import-untyped]

    from pipelines.flags import config, destinations
    from pipelines.flags.settings import PARAMETERS

    made = yaml.safe_load(text)
    settings = made.get("config", made)
    if "destinations" in settings or "feed_api_key" in settings:
        with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
            yaml.safe_dump(settings, file)
            file.flush()
            found = config.load(file.name, PARAMETERS, destinations.KINDS, "--config").faults
        # A class of the reader's own is not here.
        assert [each for each in found if "there is no module" not in each] == []


def terraform(text: str) -> None:
    import hcl2  # type: ignore[import-untyped]

    assert hcl2.loads(text)


def some_sql(text: str) -> None:
    import sqlglot

    assert all(sqlglot.parse(text, dialect="bigquery"))


def an_ini(text: str) -> None:
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read_string(text)
    assert parser.sections()


def some_python(text: str) -> None:
    compile(text, "docs", "exec")


READERS = {
    "json": a_json,
    "yaml": a_yaml,
    "hcl": terraform,
    "sql": some_sql,
    "ini": an_ini,
    "python": some_python,
    "text": lambda text: None,
}

NUMBER = r"\$?[\d][\d,]*(?:\.\d+)?"
TIMES, BY = "\u00d7", "\u00f7"
UNIT = r"(?: ?(?:M|B|s|GB|MB|MiB|GiB|TiB)\b)*"
SUM = re.compile(rf"({NUMBER}{UNIT}(?: [{TIMES}{BY}] {NUMBER}{UNIT})+) = ({NUMBER})")
COSTS = [page for page in pages() if page.startswith("docs/destinations/")]


def sums(page: str) -> list[tuple[str, float, float]]:
    """What is reckoned on a page: the text, what it makes, what it says that it makes."""
    found = []
    for text, result in SUM.findall(text_of(page)):
        value, sign = 1.0, TIMES
        for part in re.split(f" ([{TIMES}{BY}]) ", text):
            if part in (TIMES, BY):
                sign = part
                continue
            number = float(re.search(NUMBER, part)[0].strip("$").replace(",", ""))  # type: ignore[index]
            value = value * number if sign == TIMES else value / number
        found.append((text, value, float(result.strip("$").replace(",", ""))))
    return found


@pytest.mark.parametrize("page", [page for page in COSTS if not page.endswith("README.md")])
def test_what_a_page_reckons_is_right(page: str) -> None:
    found = sums(page)
    assert len(found) >= 3, "a line for each of three rates"
    wrong = [
        f"{text} is {value:,.4f}, not {said}"
        for text, value, said in found
        # Units may change between the two sides, by thousands.
        if not any(abs(value * 1000.0**by - said) <= 0.02 * said + 0.005 for by in range(-3, 3))
    ]
    assert not wrong
