"""What the whole suite shares: real servers, who may start them, a network of their own for some tests."""

from __future__ import annotations

import logging
import sys
import threading
from collections import OrderedDict
from collections.abc import Generator, Iterator

import pytest

from transforms import secret

pytest_plugins = ["pytester", "tests.servers.tiers", "tests.servers.own_network", "tests.servers.shared"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in what a test has logged (an odd file name) would end the worker that reports it."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """What a program in this process sets up for good is undone: its log, and what it takes out of texts (the
    word "splunk", where a test gave that as a token)."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    known, pattern, longest = OrderedDict(secret._known), secret._pattern, secret._longest
    yield
    for handler in list(root.handlers):
        if type(handler) is logging.StreamHandler and handler not in handlers:
            root.removeHandler(handler)
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    secret._known, secret._pattern, secret._longest = known, pattern, longest
