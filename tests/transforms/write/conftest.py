"""Fixtures of Splunk's tests: a practice server on loopback, settings that reach it, an open writer."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.practice.splunk import PracticeSplunk
from transforms.secret import LiteralSecret
from transforms.write.contract import Writer
from transforms.write.splunk.destination import Splunk


@pytest.fixture
def server() -> Iterator[PracticeSplunk]:
    with PracticeSplunk() as running:
        yield running


@pytest.fixture
def settings(server: PracticeSplunk) -> Splunk:
    return Splunk(server.url, LiteralSecret(server.token))


@pytest.fixture
def writer(settings: Splunk) -> Iterator[Writer]:
    opened = settings.open()
    yield opened
    opened.close()
