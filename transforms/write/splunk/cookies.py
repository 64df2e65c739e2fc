"""The cookies by which a load balancer keeps to one indexer."""

from __future__ import annotations

import re
from collections.abc import Mapping

# Name and value of each cookie in `Set-Cookie` headers, several of which may have been joined by commas. What
# could not be sent back as a header (RFC 6265, 4.1.1) is read over.
SET_COOKIE = re.compile(r"(?:^|,\s*)([!#-+\--:<>-~]+?)=([!-+\--:<-~]*)(?=\s*(?:;|,|$))")


class CookieJar:
    """The cookies of one channel; all of them go back, as there is only one host and one root."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    def take(self, headers: Mapping[str, str]) -> bool:
        """Keep what a reply sets; True when a cookie that we have sent was replaced by another value."""
        replaced = False
        for name, value in SET_COOKIE.findall(headers.get("set-cookie", "")):
            replaced = replaced or self._cookies.get(name, value) != value
            if value:
                self._cookies[name] = value
            else:
                self._cookies.pop(name, None)
        return replaced

    @property
    def header(self) -> str:
        """The `Cookie` header; "" for none."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())
