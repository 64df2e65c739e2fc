"""What a secret's value must be, and how values seen so far are kept out of everything that is shown."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from urllib.parse import quote

MARK = "[secret]"
# Shorter values occur inside ordinary words, and taking them out would make every line unreadable.
MIN_LENGTH = 4
# Rotation adds a value now and then; the oldest are forgotten so that a run of years stays bounded.
MAX_VALUES = 256

# The largest value either secret manager stores (64 KiB); a larger file is not a secret.
MAX_BYTES = 65_536

_lock = threading.Lock()
_known: OrderedDict[str, None] = OrderedDict()
_pattern: re.Pattern[str] | None = None


class SecretError(Exception):
    """A secret could not be read. The message names the reference and never the value."""


def remember(value: str) -> None:
    """Have `value` taken out of every text that goes through `redact` from now on."""
    global _pattern
    if len(value) < MIN_LENGTH:
        return
    with _lock:
        fresh = value not in _known
        _known[value] = None
        _known.move_to_end(value)
        if not fresh:
            return
        while len(_known) > MAX_VALUES:
            _known.popitem(last=False)
        forms = {form for known in _known for form in _forms(known)}
        # Longest first: a value that begins with another one must go as a whole.
        _pattern = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True))))


def redact(text: str) -> str:
    """`text` with every secret value read so far replaced by `[secret]`."""
    pattern = _pattern
    return text if pattern is None else pattern.sub(MARK, text)


def _forms(value: str) -> set[str]:
    """The value as it is, inside JSON or a Python repr, and inside a URL."""
    return {value, json.dumps(value)[1:-1], quote(value, safe=""), repr(value)[1:-1]}


def usable(value: str, where: str) -> str:
    """`value`, remembered for redaction. Raises SecretError for what no request header can carry.

    HTTP libraries repeat a header that they refuse in their error message, so it must not get that far.
    """
    remember(value.strip())
    if not value:
        raise SecretError(f"{where}: the value is empty")
    if "\r" in value or "\n" in value:
        raise SecretError(f"{where}: the value contains a line break")
    if value != value.strip():
        raise SecretError(f"{where}: the value begins or ends with a blank")
    if not (value.isascii() and value.isprintable()):
        raise SecretError(f"{where}: the value contains a character that a request header cannot carry")
    return value


def decoded(content: bytes, where: str) -> str:
    if len(content) > MAX_BYTES:
        raise SecretError(f"{where}: more than {MAX_BYTES} bytes, which is no secret")
    try:
        value = content.decode()
    except UnicodeDecodeError:
        raise SecretError(f"{where}: not text") from None
    return value.removesuffix("\n").removesuffix("\r")
