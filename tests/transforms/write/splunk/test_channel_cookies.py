"""The cookie jar of a channel: what load balancers set, and when it says that something has changed."""

from __future__ import annotations

import httpx
import pytest

from transforms.write.splunk.channel import CookieJar


def test_cookies_go_back_as_they_were_set() -> None:
    jar = CookieJar()
    jar.store({"set-cookie": "AWSELB=8F/1+a==; Path=/; Expires=Wed, 21 Oct 2026 07:28:00 GMT; HttpOnly"})
    assert jar.header == "AWSELB=8F/1+a=="
    jar.store({})
    assert jar.header == "AWSELB=8F/1+a=="


def test_several_headers_are_several_cookies() -> None:
    jar = CookieJar()
    headers = [("Set-Cookie", "a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT"), ("Set-Cookie", "b=2; Path=/")]
    jar.store(httpx.Headers(headers))
    assert jar.header == "a=1; b=2"


@pytest.mark.parametrize(
    ("second", "replaced", "header"),
    [
        ("LB=one; Path=/", False, "LB=one"),
        ("LB=two; Path=/", True, "LB=two"),
        ("other=x", False, "LB=one; other=x"),
        ("LB=; Max-Age=0", True, ""),
    ],
)
def test_another_value_for_a_cookie_that_was_sent_is_a_change(
    second: str, replaced: bool, header: str
) -> None:
    jar = CookieJar()
    assert not jar.store({"set-cookie": "LB=one; Path=/"})
    assert jar.store({"set-cookie": second}) == replaced
    assert jar.header == header


@pytest.mark.parametrize("odd", ["", ";", "a", "=x", "a=\x01", "a=ü", "a=b c", "ü=1", ", ,"])
def test_what_cannot_be_sent_back_is_read_over(odd: str) -> None:
    jar = CookieJar()
    assert not jar.store({"set-cookie": odd})
    assert not jar.header
