"""Memory of this process: C's allocator with one pool for all threads, and garbage looked for seldom.

glibc gives each new thread an arena of its own, up to eight a processor, and what one lets go no other can
use. A job has fifty threads, of writers, bundles, gRPC and librdkafka, through which blocks of megabytes
pass: after 400,000 events on Prism, five destinations, one of them away, 194 MB of what its arenas held was
free, and of no use to anybody. With one for all: 396 MB at most in place of 479 there, and 308 in place of
380 after 100,000 events; no slower, as Python runs one thread at a time anyway.
"""

from __future__ import annotations

import ctypes
import gc
import os

ARENAS = 1
_M_ARENA_MAX = -8  # malloc.h
# How many more objects there are when Python looks at the youngest, and how often then at older ones, too.
# With its own (700 or, from 3.13 on, 2,000; 10; 10) it looks at batches on their way again and again: 2 % of
# all CPU with five destinations at 100 events a batch. These cost next to nothing, and what Beam leaves
# behind (10 MB and more) still goes.
THRESHOLDS = 20_000, 5, 2


def share_one_arena() -> bool:
    """Do so from now on: before threads are started, as arenas that are there stay. False where the allocator
    is another (musl, macOS) or the user has said how many there are to be (MALLOC_ARENA_MAX)."""
    if "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_M_ARENA_MAX, ARENAS))


def collect_seldom() -> None:
    """From now on look for garbage after so many objects, unless somebody wants it more seldom, or never."""
    if 0 < gc.get_threshold()[0] < THRESHOLDS[0]:
        gc.set_threshold(*THRESHOLDS)
