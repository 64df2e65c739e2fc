"""Beam in this process: imported without Arrow and without a look for garbage, in one arena, and the
in-process runner in flat memory.

Beam takes Arrow along when it is there, and this job never asks for it: a tenth of what the job may have in
memory (28 of 300 MB). Afterwards it can be imported as ever, for instance by a destination of somebody's own.
Import this before anything that imports Beam.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import sys
from collections.abc import Callable, Iterable
from types import FunctionType, MethodType
from typing import Any
from weakref import WeakKeyDictionary

from transforms.allocator import collect_seldom, share_one_arena

share_one_arena()  # before Beam and gRPC start threads
collect_seldom()
# numpy comes with Beam, and the threads of its BLAS, which nobody here asks for anything, spin as they start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
ARROW = "pyarrow"
_hidden = ARROW not in sys.modules
if _hidden:
    sys.modules[ARROW] = None  # type: ignore[assignment]  # an import of it fails, which Beam expects
_collects = gc.isenabled()
gc.disable()  # of the 180,000 objects that Beam makes here none is garbage, and to look takes 0.2 s of 1.5
try:
    import apache_beam
finally:
    if _collects:
        gc.enable()
    gc.freeze()
    if _hidden:
        del sys.modules[ARROW]

from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner, fn_runner  # noqa: E402
from apache_beam.transforms import core  # noqa: E402
from apache_beam.utils import interactive_utils  # noqa: E402

from transforms.beam_internals import wrap  # noqa: E402


def in_process_runner() -> FnApiRunner:
    """What `--runner=DirectRunner` means here.

    Beam's own DirectRunner is a switch that tries Prism (and downloads its binary) before others.
    """
    hold_memory_flat()
    inspect_once()
    search_once()
    return FnApiRunner()


class LaneOptions(PipelineOptions):  # type: ignore[misc]
    """One for all lanes of a process.

    Beam copies the options of each pipeline, and asks a hundred times for a view of them while it is built
    and started, for each of which it makes an argument parser (that looks on disk for translations of its
    words): as much as all the rest of a lane's start. Here a copy is the same object, and the first view of a
    kind stays; all of them share their values anyway, and no pipeline changes what another one reads.
    """

    def __deepcopy__(self, memo: Any) -> LaneOptions:
        return self

    def view_as(self, cls: Any) -> Any:
        """The view of that class, as Beam's own method gives it."""
        views = self.__dict__.setdefault("_views", {})
        if cls not in views:
            views[cls] = super().view_as(cls)
        return views[cls]


def leave_no_directory(pipeline: apache_beam.Pipeline) -> None:
    """Remove the directory that Beam makes for each pipeline, for transforms in other languages, of which a
    lane has none. Beam does so when the pipeline ends, which after kill -9 it never does."""
    with contextlib.suppress(AttributeError, OSError):
        os.rmdir(pipeline.local_tempdir)


def hold_memory_flat() -> bool:
    """Keep the runner from chaining the metrics of all bundles; False where that is not needed or known.

    `fn_runner` keeps `consolidate(infos of the last bundle + what it kept before)`, and `consolidate` is a
    generator: nothing consumes it before the pipeline ends, so each bundle adds some 25 KB for ever.
    Consumed at once it is a short list.
    """
    return wrap(fn_runner, "consolidate_monitoring_infos", _eager)


def _eager(lazy: Any) -> Any:
    @functools.wraps(lazy)
    def consolidate(metrics: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        return list(lazy(metrics, *args, **kwargs))

    return consolidate


def search_once() -> bool:
    """Have Beam search once for the package that says whether this is IPython, which a job does not have, and
    not for each transform of each lane; False in a version where that is not known."""
    return wrap(interactive_utils, "is_in_ipython", functools.cache)


ArgumentsOf = Callable[[Any], tuple[list[str], list[Any]]]


def inspect_once() -> bool:
    """Have Beam inspect the arguments of a method once; False in a version where that is not known.

    While a pipeline is built and started it does so for every method of every DoFn, inherited ones too, again
    and again: 1,300 times a lane, half of what a lane's start costs.
    """
    return wrap(core, "get_function_args_defaults", _once_for_methods)


def _once_for_methods(arguments_of: ArgumentsOf) -> ArgumentsOf:
    known: WeakKeyDictionary[FunctionType, tuple[list[str], list[Any]]] = WeakKeyDictionary()

    @functools.wraps(arguments_of)
    def once(function: Any) -> tuple[list[str], list[Any]]:
        if not (isinstance(function, MethodType) and isinstance(function.__func__, FunctionType)):
            return arguments_of(function)
        found = known.get(function.__func__)
        if found is None:
            found = known[function.__func__] = arguments_of(function)
        names, defaults = found
        return [*names], [*defaults]

    return once
