"""What the counters of a job say at its end: nothing missing, or how many and where."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines import exit_codes
from pipelines.cluster import run
from pipelines.cluster.run import missing

DRAINED = "drained: every event received is delivered or a dead letter"
BALANCED = {
    "feed_events_received": 110,
    "feed_events_repeated": 10,
    "feed_events_dead_lettered": 3,
    "kafka_events_received": 100,
    "kafka_events_delivered": 100,
    "splunk_events_delivered": 93,
    "splunk_events_dead_lettered": 7,
    "dead_letters_events_received": 10,
    "dead_letters_events_delivered": 10,
}
TO = ("kafka", "splunk")


class Counted:
    """A job that is done, with these counters, some of them of several stages."""

    def __init__(self, *stages: dict[str, int], namespace: str = "grantex") -> None:
        self._counters = [
            SimpleNamespace(
                key=SimpleNamespace(metric=SimpleNamespace(namespace=namespace, name=name)), result=value
            )
            for stage in stages
            for name, value in stage.items()
        ]

    def metrics(self) -> Any:
        return SimpleNamespace(query=lambda: {"counters": self._counters})


def test_balanced_books_end_with_the_promise_kept(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    assert run.close(Counted(BALANCED), TO) == exit_codes.DRAINED
    assert caplog.messages == [DRAINED]


def test_a_loss_is_named_by_destination_and_number_and_the_job_has_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    lossy = Counted({**BALANCED, "splunk_events_delivered": 73})
    assert run.close(lossy, TO) == exit_codes.FAILED
    assert caplog.messages == ["splunk: 20 are lost: received, and neither delivered nor a dead letter"]


def test_what_a_savepoint_keeps_is_not_called_lost(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    stopped = Counted({**BALANCED, "kafka_events_delivered": 60})
    assert run.close(stopped, TO, savepoint=True) == exit_codes.DRAINED
    assert caplog.messages == ["kafka: 40 are in the savepoint the job was stopped with, else lost"]


def test_a_destination_without_a_counter_has_got_nothing() -> None:
    assert missing({"feed_events_received": 5, "kafka_events_delivered": 5}, TO) == {"splunk": 5}


def test_what_a_destination_does_not_ask_for_is_not_missing() -> None:
    counted = {"feed_events_received": 5, "kafka_events_delivered": 2, "kafka_events_filtered": 3}
    assert missing({**counted, "splunk_events_filtered": 4}, TO) == {"splunk": 1}


def test_dead_letters_that_were_not_written_are_missing_too() -> None:
    given_up = {**BALANCED, "dead_letters_events_delivered": 4, "dead_letters_events_dead_lettered": 6}
    assert missing(given_up, TO) == {"dead_letters": 6}


def test_counters_of_several_stages_are_added_up_and_other_peoples_left_out() -> None:
    half = {"feed_events_received": 2}
    assert run.counters(Counted(half, half, {"kafka_events_delivered": 1})) == {
        "feed_events_received": 4,
        "kafka_events_delivered": 1,
    }
    assert run.counters(Counted(half, namespace="another")) is None


def test_a_runner_that_counts_nothing_is_not_spoken_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    for silent in (Counted(), object()):
        assert run.close(silent, TO) == exit_codes.DRAINED
    assert DRAINED not in caplog.messages
    assert set(caplog.messages) == {
        "drained; whether anything is missing is not known, as the runner has counted nothing"
    }
