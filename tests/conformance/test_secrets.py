"""No secret is in a log, a repr, a pickle, an error, a dead letter or the journal, whatever goes wrong."""

from __future__ import annotations

import io
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.case import Case, events
from tests.conformance.lane import Lane
from tests.conformance.test_outage import begun

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def everything_logged() -> Iterator[io.StringIO]:
    """What every logger of the process says, at its most talkative."""
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield said
    root.setLevel(level)
    root.removeHandler(handler)


def test_secrets_are_nowhere(case: Case, tmp_path: Path, everything_logged: io.StringIO) -> None:
    if not case.secrets:
        pytest.skip(f"{case.name}: it has no secret")
    destination = case.destination()
    assert pickle.loads(pickle.dumps(destination)) == destination
    seen = [repr(destination), str(destination), pickle.dumps(destination).decode("latin-1")]
    state = tmp_path / "lane"
    lane = begun(case, state)
    seen += _through_faults(case, lane)
    lane.close()
    if "reject" not in case.cannot:
        last = Lane(state, case.destination(), lane.clock)
        last.take([*events(101, 1), case.poison(100)])
        last.run()
        assert last.dead
        seen.append(repr(last.letters))
        last.close()
    seen.append(everything_logged.getvalue())
    seen += [path.read_bytes().decode("latin-1") for path in state.rglob("*") if path.is_file()]
    for secret in case.secrets:
        assert not [text for text in seen if secret in text]


def _through_faults(case: Case, lane: Lane) -> list[str]:
    """What is said about each of the faults that this service can be made to have."""
    said = []
    if "credential" not in case.cannot and "rotate" not in case.cannot:
        case.revoke_credential()
        lane.take(events(10, 3))
        lane.run(until=lambda: lane.status.circuit.open)
        said += [lane.status.last_error, lane.status.circuit.why]
        case.mend_credential()
        lane.run()
    case.reset("after")
    lane.take(events(20, 3))
    lane.run()
    said.append(repr(lane.status))
    for number, (fault, end) in enumerate([(case.busy, case.calm), (case.down, case.up)]):
        fault()
        lane.take(events(30 + 3 * number, 3))
        lane.run(until=lambda: lane.status.circuit.open)
        said.append(repr(lane.status))
        end()
        lane.run()
    return said
