"""Each destination is tried without an event: what is found is true, and nothing is written."""

from __future__ import annotations

import pytest

from pipelines.preflight import Preflight
from tests.conformance.case import Case
from transforms.preflight import Finding, Try
from transforms.write.contract import Destination

pytestmark = pytest.mark.usefixtures("impatient")
LEAVE_SOMETHING = {"s3", "gcs", "splunk"}  # one object, one event
UNTRIED = {"custom (README)": "the README's destination has no preflight"}


def found(destination: Destination) -> list[Finding]:
    """As the job does it: what is raised becomes a finding, too."""
    return tries(destination.preflight)


def tries(tried: Try) -> list[Finding]:
    preflight = Preflight({"it": tried})
    preflight.start()
    preflight.wait()
    return list(preflight.of("it") or ())


def tried(case: Case) -> None:
    if case.name in UNTRIED:
        pytest.skip(f"{case.name}: {UNTRIED[case.name]}")


def with_a_wrong_credential(case: Case) -> None:
    tried(case)
    case.needs("credential")
    if case.name == "bigquery storage_write":
        pytest.skip("the look at the table goes to REST, which this case cannot make refuse")
    case.spoil_credential()


def test_what_is_well_passes_and_nothing_is_written(case: Case) -> None:
    tried(case)
    findings = found(case.destination())
    assert findings
    assert [each for each in findings if not each.passed] == []
    assert not case.arrived()


def test_a_wrong_credential_does_not_pass(case: Case) -> None:
    with_a_wrong_credential(case)
    findings = found(case.destination())
    assert [each for each in findings if each.passed] == []
    # Who may write need not be allowed to look: S3 says the same of a wrong key and of one with few rights.
    assert any(each.passed is False for each in findings) or case.name == "s3"
    text = " ".join(each.cause for each in findings)
    assert text
    assert not any(secret in text for secret in case.secrets)


def test_a_service_that_is_away_is_said_to_be(case: Case) -> None:
    tried(case)
    case.needs("outage")
    if case.name == "bigquery storage_write":
        pytest.skip("the look at the table goes to REST, which is not away in this case")
    destination = case.destination()
    found(destination)  # which makes the directory of the files
    case.down()
    try:
        findings = found(destination)
    finally:
        case.up()
    assert [each for each in findings if each.passed] == []
    assert all(each.cause for each in findings)
    assert not any("Error:" in each.cause for each in findings), "in words, and not as an exception"


def test_a_destination_says_where_its_events_go_without_a_secret(case: Case) -> None:
    tried(case)
    target = case.destination().target()
    assert target
    assert not any(secret in target for secret in case.secrets)


def test_a_check_of_what_is_well_passes_as_often_as_one_likes_and_names_what_it_leaves(case: Case) -> None:
    tried(case)
    for _ in range(2):
        findings = tries(case.destination().check)
        assert findings
        assert [each for each in findings if not each.passed] == []
    leaves = any("leaves " in each.note or "is there from an earlier" in each.note for each in findings)
    assert leaves == (case.name in LEAVE_SOMETHING)
    if not leaves:
        assert not case.arrived()


def test_a_check_with_a_wrong_credential_fails_and_says_why(case: Case) -> None:
    with_a_wrong_credential(case)
    findings = tries(case.destination().check)
    assert [each for each in findings if each.passed and each.what != "its health"] == []
    assert any(each.passed is False for each in findings)
    assert not any(secret in f"{each.cause} {each.note}" for each in findings for secret in case.secrets)
