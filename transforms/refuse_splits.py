"""No bundle of a stage with timers is split in two: Prism would lose the state of one half.

Prism 2.77 splits a bundle that is slow, also a keyed one, and lets both halves run at once even when they
hold the same key; each begins with the state before, and what ends last is what is kept (seen: 20,000 of
200,000 events gone). A keyed bundle has nothing to gain by a split on any runner, so it is refused here,
which the protocol allows. Every DoFn of ours with timers refuses them in `setup`.
"""

from __future__ import annotations

import functools
from typing import Any

from apache_beam.portability.api import beam_fn_api_pb2

from transforms.beam_internals import wrap


def refuse_splits() -> bool:
    """Refuse them in this process from now on; False in a version where that is not known."""
    # Here, because only a worker has it at hand.
    from apache_beam.runners.worker.bundle_processor import BundleProcessor

    return wrap(BundleProcessor, "try_split", unless_timed)


def unless_timed(try_split: Any) -> Any:
    """`try_split`, but a bundle processor with timers answers that it cannot."""

    @functools.wraps(try_split)
    def asked(processor: Any, request: Any) -> Any:
        if processor.timers_info:
            return beam_fn_api_pb2.ProcessBundleSplitResponse()
        return try_split(processor, request)

    return asked
