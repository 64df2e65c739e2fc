"""A bundle says how it gets on once a second at most, and first when it has lasted for one.

Prism asks every 0.1 s, and an answer is all metrics of all steps that run together: of a bundle that waits
for the feed, or for a destination, nearly all the work that it does. A runner that is told nothing goes on as
if nothing had moved, and nothing is lost: the end of a bundle tells all of it. Each delivery asks for this in
`setup`; it holds for all bundles of the process.
"""

from __future__ import annotations

import functools
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2

from transforms.beam_internals import wrap

EVERY = 1.0  # seconds
# Bundles: more than run at once. One that is forgotten while it runs begins anew, and would never tell.
_REMEMBERED = 1_000


def tell_progress_seldom() -> bool:
    """Do so in this process from now on; False in a version where that is not known."""
    # Here, because only a worker has it at hand.
    from apache_beam.runners.worker.sdk_worker import SdkWorker

    return wrap(SdkWorker, "process_bundle_progress", seldom)


def seldom(tell: Any, now: Callable[[], float] = time.monotonic) -> Any:
    """`tell`, but once in EVERY seconds for each bundle, since it was first asked; else the answer says
    nothing."""
    told: OrderedDict[str, float] = OrderedDict()
    lock = threading.Lock()

    @functools.wraps(tell)
    def asked(worker: Any, request: Any, instruction_id: str) -> Any:
        with lock:
            at = now()
            before = told.setdefault(request.instruction_id, at)
            while len(told) > _REMEMBERED:
                told.popitem(last=False)
            if at - before < EVERY:
                return beam_fn_api_pb2.InstructionResponse(
                    instruction_id=instruction_id,
                    process_bundle_progress=beam_fn_api_pb2.ProcessBundleProgressResponse(),
                )
            told[request.instruction_id] = at
        return tell(worker, request, instruction_id)

    return asked
