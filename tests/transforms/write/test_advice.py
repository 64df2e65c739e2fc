"""docs/failures.md is made from the one table of advice, which the messages are made from as well."""

from __future__ import annotations

from pathlib import Path

from transforms.write.advice import ADVICE, Advice, markdown

DOCS = Path(__file__).parents[3] / "docs" / "failures.md"
MAKE = (
    "python -c \"from transforms.write.advice import markdown; print(markdown(), end='')\" > docs/failures.md"
)


def test_the_page_about_failures_is_the_table() -> None:
    assert DOCS.read_text() == markdown(), f"make it anew: {MAKE}"


def test_every_failure_is_on_the_page_with_what_to_do() -> None:
    page = markdown()
    for section in ADVICE.values():
        for each in section.values():
            assert f"| {each.seen} |" in page
            assert (each.do or "heals by itself") in page


def test_a_message_says_where_what_the_words_what_is_kept_and_what_to_do() -> None:
    made = Advice("7", "has no index {index}", "create {index}")
    assert made.told("Splunk at https://x", "code 7", index="'a'") == (
        "Splunk at https://x has no index 'a' (code 7). The events are kept and sent again once this is "
        "fixed: create 'a'."
    )
    passing = Advice("no answer", ": no answer")
    assert passing.told("S3 bucket b") == "S3 bucket b: no answer. The events are kept and sent again."


def test_a_service_cannot_put_names_into_a_message() -> None:
    assert "({0} {where})" in Advice("any", "answered").told("X", "{0} {where}")
