"""An answer is not a receipt: whose words a reply's body is in, and how it is called when it is nobody's.

A 2xx delivers only when its body is what the service itself would say. What a proxy, a sign-in page or
another service says with the same status delivers nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import msgspec

from transforms.secret import redact, shown

# What is looked at of a body to say what it is.
HEAD = 4096
_TITLE = re.compile(r"<(title|h1|h2)\b[^>]*>(.*?)</\1", re.I | re.S)
_TAG = re.compile(r"<[^>]*>?")
T = TypeVar("T")


def decoded(decoder: Callable[[bytes], T], body: bytes) -> T | None:
    """`body` as the decoder reads it; None when it does not, for whatever reason. Never raises: a body may be
    no JSON, no UTF-8, nested too deeply, or have numbers that no machine can hold."""
    try:
        return decoder(body)
    except Exception:  # noqa: BLE001 - any body is data
        return None


_object = msgspec.json.Decoder(dict[str, Any]).decode


def fields(body: bytes) -> dict[str, Any] | None:
    """The members of a body that is one JSON object; None for any other."""
    return decoded(_object, body)


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the body is a page for people: no service answers events with one."""
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<"):
        return True
    return bool(text) and "html" in headers.get("content-type", "").lower() and fields(body) is None


def is_receipt(
    body: bytes,
    own: Callable[[dict[str, Any]], bool],
    plain: Collection[bytes] = (),
    cut: re.Pattern[bytes] | None = None,
) -> bool:
    """Whether the body of a 2xx is what the service itself says when it has taken events.

    An empty body is, and a JSON object that is `own`. plain: other whole bodies that are, in lower case. cut:
    what the beginning of such an object looks like, because a body that ends early (the status has come,
    then the connection broke) still delivers.
    """
    text = body.strip()
    if not text:
        return True
    members = fields(body)
    if members is not None:
        return decoded(lambda _: own(members), b"") is True
    return text.lower() in plain or (cut is not None and cut.fullmatch(text) is not None)


def described(headers: Mapping[str, str], body: bytes) -> str:
    """What an answer is that is not the service's own, for a message: `a page "Sign in"`."""
    if not body.strip():
        return "an empty answer"
    head = redact(body.decode(errors="replace"))[:HEAD]
    if is_page(headers, body):
        found = _TITLE.search(head)
        words = shown(_TAG.sub(" ", found[2] if found else head), 80)
        return f'a page "{words}"' if words else "a page"
    return f'"{shown(head, 80)}"'
