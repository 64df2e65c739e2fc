"""Readers of what a person writes; the messages of each are tried through its flag in test_parameter."""

from __future__ import annotations

import os

import pytest

from transforms import readers


def test_harmless_values_are_repeated() -> None:
    assert readers.shown("/srv/state") == "=/srv/state"
    assert readers.shown("http://127.0.0.1:99999") == "=http://127.0.0.1:99999"


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "~\0"])
def test_what_no_file_system_takes_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match="must be a path"):
        readers.path(text)


def test_a_name_that_is_no_utf_8_is_a_path() -> None:
    """So it arrives from a command line, and so it is given back to the system."""
    assert os.fsencode(readers.path("/srv/caf\udce9")) == b"/srv/caf\xe9"


@pytest.mark.parametrize(
    ("count", "words"),
    [(10 * 1024**3, "10 GiB"), (64_000_000, "64 MB"), (4_500_000, "4500 kB"), (1536, "1536"), (0, "0")],
)
def test_a_number_of_bytes_is_told_in_the_unit_that_a_person_would_take(count: int, words: str) -> None:
    assert readers.bytes_in_words(count) == words
    assert readers.byte_count(words) == count
