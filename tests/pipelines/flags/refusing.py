"""What all tests of groups need: the lines that parameters are refused with."""

from __future__ import annotations

import pytest

from pipelines.flags.settings import BadParameters, parse

FEED_KEY = "gx_live_Zx81-not-for-anyone"
ENVIRON = {"FEED_KEY": FEED_KEY, "DD_KEY": "0123456789abcdef0123456789abcdef"}
FEED = "--feed_api_key=env:FEED_KEY"


def refused(*argv: str) -> list[str]:
    """The faults of these flags beside a feed."""
    with pytest.raises(BadParameters) as raised:
        parse([FEED, *argv], ENVIRON)
    return raised.value.lines
