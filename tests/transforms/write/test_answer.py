"""Whose words an answer is in: each service reads it for itself."""

from __future__ import annotations

from typing import Any

import pytest

from transforms.write.answer import is_receipt


def says_ok(members: dict[str, Any]) -> bool:
    return bool(members["code"] == 0)


def says_done(members: dict[str, Any]) -> bool:
    return bool(members["done"])


@pytest.mark.parametrize("size", [10, 63, 64, 65, 640])
def test_each_reads_the_same_answer_for_itself_however_often(size: int) -> None:
    body = b'{"code":0}'.ljust(size)
    refused = b'{"code":9}'.ljust(size)
    for _ in range(3):
        assert is_receipt(body, says_ok)
        assert not is_receipt(refused, says_ok)
        assert not is_receipt(body, says_done), "and what it raises is no receipt"
    assert is_receipt(b"ok", says_ok, (b"ok",))
    assert not is_receipt(b"ok", says_ok)
