"""Messages are made of the one table of advice, which docs/runbook.md shows."""

from __future__ import annotations

from transforms.write.advice import Advice


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
