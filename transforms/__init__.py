"""Beam transforms that read the Grantex event feed and keep destinations complete.

    from transforms import ReadFromGrantex, WriteToBigQuery

Each stands alone in anyone's pipeline. They are imported when they are asked for: `import transforms.event`
costs neither Beam's two seconds nor a vendor's library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transforms.feed.read import ReadFromGrantex
    from transforms.feed.request import FeedSettings
    from transforms.secret import parse_secret
    from transforms.write.dead_letters.directory import WriteDeadLetters
    from transforms.write.sinks import (
        WriteToBigQuery,
        WriteToDatadog,
        WriteToFiles,
        WriteToGCS,
        WriteToKafka,
        WriteToPubSub,
        WriteToS3,
        WriteToSplunk,
    )
    from transforms.write.write_to import WriteTo

__all__ = [
    "FeedSettings",
    "ReadFromGrantex",
    "WriteDeadLetters",
    "WriteTo",
    "WriteToBigQuery",
    "WriteToDatadog",
    "WriteToFiles",
    "WriteToGCS",
    "WriteToKafka",
    "WriteToPubSub",
    "WriteToS3",
    "WriteToSplunk",
    "parse_secret",
]

ELSEWHERE = {
    "FeedSettings": "transforms.feed.request",
    "ReadFromGrantex": "transforms.feed.read",
    "WriteDeadLetters": "transforms.write.dead_letters.directory",
    "WriteTo": "transforms.write.write_to",
    "parse_secret": "transforms.secret",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(ELSEWHERE.get(name, "transforms.write.sinks")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
