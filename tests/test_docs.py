"""What the documentation says of the tree is true: files that it names are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMED = re.compile(r"`((?:pipelines|transforms|tests|templates|docs)/[\w/.\-*]*)`")
LINKED = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[\w-]*)?\)")


def pages() -> list[str]:
    return [str(page.relative_to(ROOT)) for page in PAGES]


@pytest.mark.parametrize("page", pages())
def test_files_that_a_page_names_are_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    missing = [name for name in NAMED.findall(text) if not list(ROOT.glob(name.rstrip("/")))]
    assert not missing, f"{page} names what is not there"


@pytest.mark.parametrize("page", pages())
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    missing = [
        link for link in LINKED.findall(path.read_text(encoding="utf-8")) if not (path.parent / link).exists()
    ]
    assert not missing, f"{page} links to what is not there"
