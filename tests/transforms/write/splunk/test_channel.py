"""Splunk: connections that break, hang, are not trusted or are closed."""

from __future__ import annotations

import ssl
import threading
from dataclasses import replace
from typing import Any

import pytest

from pipelines.practice.splunk import PracticeSplunk
from tests.transforms.write.encodings import batch
from tests.transforms.write.splunk.server import all_later, certificate
from transforms.secret import LiteralSecret
from transforms.way_out import WayOut
from transforms.write.contract import Outcome, Writer
from transforms.write.over_http import reply as http_reply
from transforms.write.splunk.destination import Splunk


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, str]:
    return certificate(tmp_path_factory.mktemp("tls"))


def test_refused_connections_are_later_and_surely_not_sent(server: PracticeSplunk, writer: Writer) -> None:
    server.down()
    outcome = all_later(writer.write(batch(2)), 2)
    assert not outcome.unknown
    assert not outcome.blocked
    server.up()
    assert writer.write(batch(2)) is None


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_reset_is_later_and_unknown_and_never_sent_again_in_here(
    server: PracticeSplunk, writer: Writer, when: Any
) -> None:
    assert writer.write(batch(1)) is None
    server.reset(when)
    outcome = all_later(writer.write(batch(2)), 2)
    assert outcome.unknown
    assert server.count == (3 if when == "after" else 1)
    assert writer.write(batch(2)) is None


def test_a_connection_closed_between_requests_is_replaced(server: PracticeSplunk, writer: Writer) -> None:
    assert writer.write(batch(1)) is None
    server.down()
    server.up()
    assert writer.write(batch(1)) is None
    assert server.connection_count == 2


def test_a_read_time_out_is_later_and_unknown(
    server: PracticeSplunk, settings: Splunk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_reply, "READ_SECONDS", 0.1)
    writer = settings.open()
    server.hang()
    assert all_later(writer.write(batch(2)), 2).unknown


def test_an_untrusted_certificate_blocks_until_its_authority_is_named(
    tls: tuple[ssl.SSLContext, str],
) -> None:
    context, authority = tls
    with PracticeSplunk(tls=context) as server:
        settings = Splunk(server.url, LiteralSecret(server.token))
        outcome = all_later(settings.open().write(batch(1)), 1)
        assert outcome.blocked
        assert "--ca_file" in outcome.cause
        assert replace(settings, way_out=WayOut(ca_file=authority)).open().write(batch(2)) is None
        assert server.count == 2


# Closing


@pytest.mark.parametrize("secure", [False, True])
def test_close_frees_a_write_that_hangs(tls: tuple[ssl.SSLContext, str], secure: bool) -> None:
    context, authority = tls
    with PracticeSplunk(tls=context if secure else None) as server:
        writer = Splunk(server.url, LiteralSecret(server.token), way_out=WayOut(ca_file=authority)).open()
        server.hang()
        outcomes: list[Outcome | None] = []
        hanging = threading.Thread(target=lambda: outcomes.append(writer.write(batch(2))))
        hanging.start()
        assert server.wait_for_requests(1)
        writer.close()
        hanging.join(5)
        assert not hanging.is_alive()
        assert all_later(outcomes[0], 2).unknown
        assert not all_later(writer.write(batch(1)), 1).unknown
