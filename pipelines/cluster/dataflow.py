"""Dataflow: what this job needs of it, and what contradicts that, one line each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from apache_beam.options.pipeline_options import (
    DebugOptions,
    GoogleCloudOptions,
    PipelineOptions,
    SetupOptions,
    WorkerOptions,
)

# One is enough for most feeds; with two, one may fail without stopping everything.
WORKERS = 2
MACHINE_TYPE = "n2-standard-2"
# Requests wait for answers most of the time. Beam's own default, written down so that it stays.
THREADS = 12
# Several Python processes on a machine would each open a session, and pass restrictions among themselves.
ONE_PROCESS = "no_use_multiple_sdk_containers"
_PROCESSES = "a stream of the feed needs one process"
_MODE = "batches must not change when they are tried again, which only exactly-once mode promises"
_WORKERS = "whenever the number or size of workers changes, a stream of the feed may be cut"
_RUNNER = "reading the feed, and state with timers, need Runner v2"
# What the service would be asked for, by name, and why not. It is asked by experiments as well as by service
# options, whichever was documented first, and takes each by either.
CONTRADICTING = {
    "use_multiple_sdk_containers": _PROCESSES,
    "use_sibling_sdk_workers": _PROCESSES,
    "streaming_mode_at_least_once": _MODE,
    "enable_prime": _WORKERS,
    "enable_vertical_memory_autoscaling": _WORKERS,
    "min_num_workers": _WORKERS,
    "max_num_workers": _WORKERS,
    "disable_runner_v2": _RUNNER,
    "disable_prime_runner_v2": _RUNNER,
}
# The template's image says here what it is called, so that workers run the very same.
IMAGE_VARIABLE = "WORKER_IMAGE"


def faults(beam_args: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """What Beam's own flags lack or contradict."""
    options = PipelineOptions(list(beam_args))
    cloud = options.view_as(GoogleCloudOptions)
    for name in ("project", "region", "temp_location"):
        if not getattr(cloud, name):
            yield f"--{name}: is missing, and DataflowRunner needs it (one of Beam's own flags)"
    if cloud.temp_location and not cloud.temp_location.startswith("gs://"):
        yield "--temp_location: must begin with gs:// (one of Beam's own flags)"
    setup = options.view_as(SetupOptions)
    if not (_image(options, environ) or setup.setup_file or setup.extra_packages):
        yield (
            "--sdk_container_image: is missing, and workers need this package: give the image that "
            "templates/build.sh makes, or --setup_file=./setup.py (Beam's own flags)"
        )
    yield from _mode(options)
    yield from _workers(options.view_as(WorkerOptions))


def _mode(options: PipelineOptions) -> Iterator[str]:
    """A template's additional experiments arrive as --experiments, too."""
    asked = {
        "experiments": options.view_as(DebugOptions).experiments,
        "dataflow_service_options": options.view_as(GoogleCloudOptions).dataflow_service_options,
    }
    for flag, values in asked.items():
        for value in values or ():
            text = value.strip(" []\"'")
            name = text.partition("=")[0].strip().lower()
            why = _RUNNER if name.startswith("disable_runner_v2") else CONTRADICTING.get(name)
            if why:
                yield f"--{flag}={text}: leave it out; {why}"


def _workers(workers: WorkerOptions) -> Iterator[str]:
    most = workers.max_num_workers
    if most and workers.num_workers and most != workers.num_workers:
        yield (
            f"--max_num_workers={most}: must be the same as --num_workers={workers.num_workers}: whenever "
            "the number of workers changes, a stream of the feed may be cut"
        )
    if workers.autoscaling_algorithm not in (None, "NONE"):
        yield (
            f"--autoscaling_algorithm={workers.autoscaling_algorithm}: must be NONE: whenever the number of "
            "workers changes, a stream of the feed may be cut"
        )


def pin(options: PipelineOptions, environ: Mapping[str, str]) -> None:
    """Set what was not given, and what may not be otherwise."""
    workers = options.view_as(WorkerOptions)
    workers.num_workers = workers.num_workers or workers.max_num_workers or WORKERS
    workers.max_num_workers = workers.num_workers
    workers.autoscaling_algorithm = "NONE"
    workers.machine_type = workers.machine_type or MACHINE_TYPE
    workers.sdk_container_image = _image(options, environ) or None
    debug = options.view_as(DebugOptions)
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or THREADS
    debug.add_experiment(ONE_PROCESS)
    # Beam is in the image; nothing of it is looked for or staged.
    options.view_as(SetupOptions).sdk_location = "container"


def _image(options: PipelineOptions, environ: Mapping[str, str]) -> str:
    return options.view_as(WorkerOptions).sdk_container_image or environ.get(IMAGE_VARIABLE, "")
