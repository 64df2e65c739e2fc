"""A window of time of the delivery ledger as compact rows; a walk that was broken off goes on from a file.

The file has a line of JSON that says which window it is, then a block for each page. A torn last block is as
if its page had not been read.
"""

from __future__ import annotations

import io
import logging
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import numpy.typing as npt

from transforms import ulid
from transforms.durable import open_private
from transforms.feed.ledger import SLACK, Delivery, Ledger
from transforms.id_set import KEY, Keys, as_bytes, key_of
from transforms.structs import ready

log = logging.getLogger("grantex.ledger")
FORMAT = 1
OLD = 86_400.0  # seconds since a checkpoint was written
_LENGTH = struct.Struct("<I")


@ready
class Window(msgspec.Struct, frozen=True):
    """Which rows: of a webhook, from `since` to `until` (epoch seconds by the service's clock)."""

    url: str
    webhook: str
    since: float
    until: float
    format: int = FORMAT


class _Block(msgspec.Struct, array_like=True):
    """A page's rows. `reached`: all rows that are newer than this were read; -inf once all are."""

    reached: float
    keys: bytes
    types: list[str]  # the different ones
    kinds: bytes  # an index into them for each row
    odd: list[tuple[str, float]]  # ids of another form than the service's, with their time


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Block).decode


class LedgerWindow:
    """The rows of a window, as far as they have been read.

    types: the different ones; `kinds` has an index into them for each key.
    """

    def __init__(self, window: Window, checkpoint: Path | None = None) -> None:
        """checkpoint: where a walk is kept that may be broken off, or was. Raises OSError."""
        self.window = window
        self.types: list[str] = []
        self.reached = np.inf
        self._numbers: dict[str, int] = {}
        self._keys: list[bytes] = []
        self._kinds: list[npt.NDArray[np.uint16]] = []
        self._odd: dict[bytes, tuple[str, float]] = {}
        self.count = 0  # rows read, with the few that a walk reads twice
        self._file: BinaryIO = io.BytesIO() if checkpoint is None else self._opened(checkpoint)

    @property
    def is_complete(self) -> bool:
        """Whether all of the window was read."""
        return self.reached == -np.inf

    def read(self, ledger: Ledger, on_page: Callable[[LedgerWindow], None] = lambda window: None) -> None:
        """Read what is left. Raises LedgerError, Stopped, OSError; what was read until then is kept."""
        if self.is_complete:
            return
        window = self.window
        first = ledger.page_before(window.webhook, min(window.until, self.reached + SLACK))
        for rows in ledger.walk(window.webhook, first):
            inside = [row for row in rows if window.since <= row.at <= window.until]
            # Not the page's oldest: its ids' times are in order to within seconds only.
            newest = max([row.at for row in rows], default=np.inf)
            self.reached = min(self.reached, newest)
            self._add(self._block(inside, self.reached))
            on_page(self)
            if newest < window.since - SLACK:
                break
        self.reached = -np.inf
        self._add(self._block([], self.reached))
        on_page(self)

    def sorted(self) -> tuple[Keys, npt.NDArray[np.uint16]]:
        """The keys in order, each once, with their kinds."""
        keys = np.frombuffer(b"".join(self._keys), KEY)
        kinds = np.concatenate([np.empty(0, np.uint16), *self._kinds])
        different, at = np.unique(keys, return_index=True)
        return different, kinds[at]

    def event(self, key: Any) -> tuple[str, float]:
        """Id and time (epoch seconds) of a key."""
        packed = as_bytes(key)
        return self._odd.get(packed) or (ulid.unpack(packed), ulid.seconds(packed))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _block(self, rows: Sequence[Delivery], reached: float) -> _Block:
        names = list(dict.fromkeys([row.eventType for row in rows]))
        number = {name: at for at, name in enumerate(names)}
        return _Block(
            reached,
            b"".join([key_of(row.eventId) for row in rows]),
            names,
            bytes([number[row.eventType] for row in rows]),
            [(row.eventId, row.at) for row in rows if ulid.pack(row.eventId) is None],
        )

    def _add(self, block: _Block) -> None:
        body = _encode(block)
        self._file.write(_LENGTH.pack(len(body)) + body)
        self._file.flush()
        self._take(block)

    def _take(self, block: _Block) -> None:
        for name in block.types:
            if name not in self._numbers:
                self._numbers[name] = len(self.types)
                self.types.append(name)
        if block.keys:
            numbers = np.array([self._numbers[name] for name in block.types], np.uint16)
            self._keys.append(block.keys)
            self._kinds.append(numbers[np.frombuffer(block.kinds, np.uint8)])
            self._odd |= {key_of(event_id): (event_id, at) for event_id, at in block.odd}
            self.count += len(block.kinds)
        self.reached = block.reached

    def _opened(self, path: Path) -> BinaryIO:
        """The file, with what it holds of this window taken; new when it holds none."""
        header = msgspec.json.encode(self.window) + b"\n"
        file = open(path, "a+b", opener=open_private)  # noqa: SIM115
        file.seek(0)
        if file.readline() == header:
            end = len(header)
            for block, stop in _blocks(file, end):
                self._take(block)
                end = stop
            file.truncate(end)
            if self.count:
                log.info("%s: going on after %d rows that were read before", path, self.count)
        else:
            file.truncate(0)
            file.write(header)
        file.seek(0, io.SEEK_END)
        return file


def checkpointed(path: Path) -> Window | None:
    """The window that the file holds; None when there is none that can be read, or it is old: whoever gives
    the same command then asks for the window anew."""
    try:
        if time.time() - path.stat().st_mtime > OLD:
            return None
        with path.open("rb") as file:
            window = msgspec.json.decode(file.readline(), type=Window)
    except (OSError, msgspec.MsgspecError):
        return None
    return window if window.format == FORMAT else None


def _blocks(file: BinaryIO, begin: int) -> Iterator[tuple[_Block, int]]:
    """The whole blocks, each with where it ends."""
    end = begin
    while len(head := file.read(_LENGTH.size)) == _LENGTH.size:
        length = _LENGTH.unpack(head)[0]
        body = file.read(length)
        try:
            block = _decode(body)
        except msgspec.MsgspecError:
            return
        end += _LENGTH.size + length
        yield block, end
