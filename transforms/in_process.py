"""Deliveries by name: Beam pickles its DoFns even in-process, so a DoFn finds its delivery here."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transforms.write.delivery.delivery import Delivery

_lock = threading.Lock()
_deliveries: dict[str, Delivery] = {}


def register(name: str, delivery: Delivery) -> None:
    """Make `delivery` the one that the lane `name` uses from its next bundle on."""
    with _lock:
        _deliveries[name] = delivery


def registered(name: str) -> Delivery:
    """The delivery of the lane `name`. Raises LookupError when this process has none."""
    with _lock:
        delivery = _deliveries.get(name)
    if delivery is None:
        raise LookupError(
            f"no delivery is registered for the lane {name!r} in this process: WriteTo(lane=...) works only "
            "where the lane runs; leave `lane` out to use the sink on its own"
        )
    return delivery


def unregister(name: str) -> None:
    """Forget the lane's delivery; nothing happens when there is none."""
    with _lock:
        _deliveries.pop(name, None)
