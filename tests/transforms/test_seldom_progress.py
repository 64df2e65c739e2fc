"""A bundle's progress is told once a second, each bundle's for itself."""

from __future__ import annotations

from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2
from apache_beam.runners.worker.sdk_worker import SdkWorker

from transforms.seldom_progress import EVERY, seldom, tell_progress_seldom


def test_each_bundle_is_answered_once_a_second_and_says_nothing_before_and_in_between() -> None:
    time, said = 100.0, []

    def tell(worker: Any, request: Any, instruction_id: str) -> str:
        said.append((request.instruction_id, instruction_id, time))
        return instruction_id

    asked = seldom(tell, lambda: time)

    def ask(bundle: str, question: str) -> Any:
        return asked(None, beam_fn_api_pb2.ProcessBundleProgressRequest(instruction_id=bundle), question)

    silent = ask("one", "1")
    assert silent.instruction_id == "1"
    assert silent.WhichOneof("response") == "process_bundle_progress"
    assert not silent.process_bundle_progress.monitoring_data
    time += EVERY / 2
    assert ask("other", "2").instruction_id == "2", "each since it was first asked itself"
    time += EVERY / 2
    assert ask("one", "3") == "3"
    assert ask("one", "4") != "4"
    assert ask("other", "5") != "5"
    time += EVERY / 2
    assert ask("other", "6") == "6"
    time += EVERY / 2
    assert ask("one", "7") == "7"
    assert said == [("one", "3", 101.0), ("other", "6", 101.5), ("one", "7", 102.0)]


def test_all_bundles_of_a_worker_are_told_of_however_many_run_at_once() -> None:
    time = 100.0
    asked = seldom(lambda worker, request, instruction_id: instruction_id, lambda: time)
    bundles = [beam_fn_api_pb2.ProcessBundleProgressRequest(instruction_id=str(n)) for n in range(500)]
    assert not [one for one in bundles if asked(None, one, "first") == "first"]
    time += EVERY
    assert [asked(None, one, "next") for one in bundles] == ["next"] * len(bundles)


def test_it_is_asked_for_once_however_many_stages_do() -> None:
    assert tell_progress_seldom()
    once = SdkWorker.process_bundle_progress
    assert tell_progress_seldom()
    assert SdkWorker.process_bundle_progress is once
