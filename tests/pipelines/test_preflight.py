"""The preflight: all at once, bounded in time, and whatever happens is a finding."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from pipelines.preflight import NO_ANSWER, UNTRIED, Preflight
from transforms.preflight import Finding
from transforms.secret import parse_secret

GOOD = Finding("the token", True)
BAD = Finding("the table", False, "It is not there: create it.")
UNKNOWN = Finding("the topic", None, "The service is busy.")


def good() -> Iterator[Finding]:
    yield GOOD


def bad() -> Iterator[Finding]:
    yield GOOD
    yield BAD


def broken() -> Iterator[Finding]:
    yield GOOD
    raise ConnectionRefusedError(f"refused {parse_secret('a-token-for-nobody').read()}")


def started(**tries: object) -> Preflight:
    preflight = Preflight(tries)  # type: ignore[arg-type]
    preflight.start()
    return preflight


def test_passes_when_all_that_was_tried_passed() -> None:
    preflight = started(a=good, b=list)
    assert preflight.wait()
    assert preflight.of("a") == [GOOD]


def test_what_could_not_be_told_did_not_pass() -> None:
    assert not started(a=lambda: [UNKNOWN]).wait()


def test_nothing_to_try_passes_at_once() -> None:
    assert started().wait(0)


def test_a_failure_is_told_and_logged_and_the_others_are_found_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    preflight = started(a=bad, b=good)
    assert not preflight.wait()
    assert preflight.of("a") == [GOOD, BAD]
    assert preflight.of("b") == [GOOD]
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert record.getMessage() == "a: the table did not pass: It is not there: create it."


def test_what_is_raised_is_a_finding_without_secrets() -> None:
    preflight = started(a=broken)
    assert not preflight.wait()
    found = preflight.of("a")
    assert found is not None
    assert found[0] == GOOD
    assert found[1].passed is False
    assert "ConnectionRefusedError: refused [secret]" in found[1].cause


def test_one_that_hangs_holds_up_nobody_and_is_said_to_have_given_no_answer() -> None:
    release = threading.Event()

    def hangs() -> Iterator[Finding]:
        release.wait()
        yield BAD

    preflight = started(a=hangs, b=good)
    assert preflight.of("a") is None, "not known yet"
    assert not preflight.wait(0.2)
    assert preflight.of("a") == [NO_ANSWER]
    release.set()


def test_what_was_found_before_one_began_to_hang_is_kept_and_what_comes_later_is_not_looked_at() -> None:
    told: list[Finding] = []
    release, over = threading.Event(), threading.Event()

    def hangs() -> Iterator[Finding]:
        yield GOOD
        release.wait()
        yield BAD
        over.set()

    preflight = Preflight({"a": hangs}, tell=lambda name, found: told.append(found))
    preflight.start()
    assert not preflight.wait(0.2)
    release.set()
    for thread in threading.enumerate():
        if thread.name == "preflight-a":
            thread.join()
    assert preflight.of("a") == [GOOD, NO_ANSWER]
    assert preflight.found() == {"a": [GOOD, NO_ANSWER]}
    assert told == [GOOD]
    assert not over.is_set(), "nobody asks for more"


def test_what_cannot_be_tried_is_found_to_be_so() -> None:
    preflight = started(splunk=bad, custom=list)
    preflight.wait()
    assert preflight.found() == {"splunk": [GOOD, BAD], "custom": [UNTRIED]}
