"""What the whole suite shares: real servers, who may start them, a network of their own for some tests."""

from __future__ import annotations

from collections.abc import Generator

import pytest

pytest_plugins = ["pytester", "tests.servers.tiers", "tests.servers.own_network", "tests.servers.shared"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Half a character in what a test has logged (an odd file name) would end the worker that reports it."""
    report = yield
    report.sections = [
        (name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections
    ]
    return report
