"""Whether the driver of a job on a cluster can drain it, and what it says when it cannot."""

from __future__ import annotations

import gc
import logging
import threading
from typing import NoReturn

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions

from pipelines import exit_codes
from pipelines.cluster import run
from pipelines.flags.settings import BadParameters, parse
from tests.pipelines.flags.test_rules import ENVIRON, FEED, KAFKA, LETTERS


class Submitted:
    """A job on a cluster far away. Cancelling it is what must not be done, nor said."""

    def __init__(self, state: str = "", *, over: bool | None = None) -> None:
        self._state, self._over = state, threading.Event()
        if state if over is None else over:
            self.end()

    def end(self) -> None:
        self._over.set()

    def wait_until_finish(self) -> str:
        self._over.wait()
        return self._state

    def cancel(self) -> NoReturn:
        raise AssertionError("cancelled")


def outcome(monkeypatch: pytest.MonkeyPatch, job: Submitted, stop: threading.Event, *argv: str) -> int:
    """Of a run whose runner submits `job`."""

    monkeypatch.setattr(beam.Pipeline, "run", lambda self: job)
    runner = [] if any(one.startswith("--runner") for one in argv) else ["--runner=PortableRunner"]
    settings = parse([FEED, KAFKA, LETTERS, *runner, *argv], ENVIRON)
    return run.run(settings, lambda pipeline: None, stop)


def test_stopped_it_leaves_a_job_on_other_machines_alone_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    stop.set()
    caplog.set_level(logging.INFO, "grantex.run")
    code = outcome(monkeypatch, Submitted(), stop, "--environment_type=DOCKER", "--drain_timeout=1")
    assert code == exit_codes.DRAINED
    assert "the job goes on; to stop it on Flink" in caplog.messages[-1]
    assert not any(word in " ".join(caplog.messages) for word in ("drained", "draining", "cancelled"))


@pytest.mark.parametrize(("state", "code"), [("DONE", exit_codes.DRAINED), ("FAILED", exit_codes.FAILED)])
def test_it_says_how_a_job_elsewhere_has_ended(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, state: str, code: int
) -> None:
    caplog.set_level(logging.INFO, "grantex.run")
    assert outcome(monkeypatch, Submitted(state), threading.Event(), "--environment_type=DOCKER") == code
    assert ("drained" if code == exit_codes.DRAINED else "the job ended FAILED") in caplog.messages[-1]


def test_the_workers_that_the_runner_has_put_inside_are_drained(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The runner says so in its own copy of the options, as Prism's does."""
    job, stop = Submitted("DONE", over=False), threading.Event()
    stop.set()

    def submit(pipeline: beam.Pipeline) -> Submitted:
        pipeline.options.view_as(PortableOptions).environment_type = "LOOPBACK"
        return job

    monkeypatch.setattr(beam.Pipeline, "run", submit)
    monkeypatch.setattr(run, "drain", job.end)
    caplog.set_level(logging.INFO, "grantex.run")
    settings = parse([FEED, KAFKA, LETTERS, "--runner=PrismRunner"], ENVIRON)
    assert run.run(settings, lambda pipeline: None, stop) == exit_codes.DRAINED
    assert [message.split(":")[0].split(";")[0] for message in caplog.messages] == ["draining", "drained"]


@pytest.mark.parametrize(("workers", "times"), [("LOOPBACK", 1), ("DOCKER", 0)])
def test_what_is_imported_is_not_collected_where_the_workers_are_inside(
    monkeypatch: pytest.MonkeyPatch, workers: str, times: int
) -> None:
    frozen: list[bool] = []
    monkeypatch.setattr(gc, "freeze", lambda: frozen.append(True))
    outcome(monkeypatch, Submitted("DONE"), threading.Event(), f"--environment_type={workers}")
    assert len(frozen) == times


@pytest.mark.parametrize(
    ("runner", "said", "unsaid"),
    [
        ("PrismRunner", "the job is cancelled", "flink"),
        ("PortableRunner", "a Flink that runs elsewhere keeps the job", "is cancelled"),
    ],
)
def test_a_job_that_does_not_end_is_given_up_and_what_becomes_of_it_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, runner: str, said: str, unsaid: str
) -> None:
    """Flink's job server says CANCELLED, too, and Flink goes on."""
    stop, told = threading.Event(), threading.Event()
    stop.set()
    job = Submitted()
    monkeypatch.setattr(job, "cancel", told.set)
    monkeypatch.setattr(run, "drain", lambda: None)
    argv = [f"--runner={runner}", "--environment_type=LOOPBACK", "--drain_timeout=0.1"]
    assert outcome(monkeypatch, job, stop, *argv) == exit_codes.FAILED
    assert told.is_set()
    assert said in caplog.messages[-1]
    assert unsaid not in caplog.messages[-1]


def test_what_beam_finds_wrong_with_its_own_options_is_said_in_one_line_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loopback = ["--environment_type=LOOPBACK", "--environment_config=x"]
    argv = [*loopback, "--environment_options=process_command=x"]
    with pytest.raises(BadParameters) as refused:
        outcome(monkeypatch, Submitted(), threading.Event(), *argv)
    assert refused.value.lines == [
        "Option process_command is not compatible with environment type LOOPBACK.",
        "Option environment_config is not compatible with environment type LOOPBACK.",
    ]


@pytest.mark.parametrize("kind", ["", "DOCKER", "EXTERNAL", "PROCESS"])
def test_workers_are_inside_only_in_loopback(kind: str) -> None:
    given = [f"--environment_type={kind}"] if kind else []
    options = PipelineOptions(given)
    assert not run.workers_inside(options)
    options.view_as(PortableOptions).environment_type = "LOOPBACK"  # as PrismRunner does by default
    assert run.workers_inside(options)
