"""A bundle's answer leaves before the ends of its outputs, and nothing else changes its place."""

from __future__ import annotations

from typing import Any

import pytest
from apache_beam.portability.api import beam_fn_api_pb2 as api
from apache_beam.runners.worker.sdk_worker import SdkHarness

from transforms.answer_first import answer_first, but_ends, then_ends

BUNDLE = api.InstructionRequest(process_bundle=api.ProcessBundleRequest())
PROGRESS = api.InstructionRequest(process_bundle_progress=api.ProcessBundleProgressRequest())
DATA, TIMERS = api.Elements.Data(data=b"data"), api.Elements.Timers(timers=b"timers")
DATA_END, TIMERS_END = api.Elements.Data(is_last=True), api.Elements.Timers(is_last=True)


class Channel:
    """Of the data plane: keeps what is sent, in order."""

    def __init__(self, sent: list[Any]) -> None:
        self.sent = sent

    @but_ends
    def _enqueue_to_send(self, element: Any) -> None:
        self.sent.append(element)


def execute(channel: Channel, request: Any, error: Exception | None = None) -> None:
    """As the harness does: the bundle is processed, then it is answered."""

    def process() -> None:
        for element in (DATA, DATA_END, TIMERS, TIMERS_END):
            channel._enqueue_to_send(element)
        if error is not None:
            raise error

    @then_ends
    def execute(harness: Any, task: Any, request: Any) -> None:
        task()
        channel.sent.append("answer")

    execute(None, process, request)


def test_the_ends_of_its_outputs_follow_the_answer() -> None:
    sent: list[Any] = []
    execute(Channel(sent), BUNDLE)
    assert sent == [DATA, TIMERS, "answer", DATA_END, TIMERS_END]


def test_each_bundle_ends_its_own_outputs_and_what_is_sent_between_bundles_is_sent_at_once() -> None:
    sent: list[Any] = []
    channel = Channel(sent)
    execute(channel, BUNDLE)
    channel._enqueue_to_send(DATA_END)
    assert sent[5:] == [DATA_END]
    execute(channel, BUNDLE)
    assert sent[6:] == [DATA, TIMERS, "answer", DATA_END, TIMERS_END]


def test_who_asks_for_progress_is_answered_as_ever() -> None:
    sent: list[Any] = []
    execute(Channel(sent), PROGRESS)
    assert sent == [DATA, DATA_END, TIMERS, TIMERS_END, "answer"]


def test_outputs_that_were_ended_end_even_if_there_is_no_answer() -> None:
    sent: list[Any] = []
    channel = Channel(sent)
    with pytest.raises(ZeroDivisionError):
        execute(channel, BUNDLE, ZeroDivisionError())
    assert sent == [DATA, TIMERS, DATA_END, TIMERS_END]
    channel._enqueue_to_send(DATA_END)
    assert sent[4:] == [DATA_END]


def test_it_is_asked_for_once_however_many_stages_do() -> None:
    assert answer_first()
    once = SdkHarness._execute
    assert answer_first()
    assert SdkHarness._execute is once
