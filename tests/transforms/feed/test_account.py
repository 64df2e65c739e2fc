"""The feed's key is tried without a stream, and whatever comes back is a finding."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipelines.practice.feed import PracticeFeed
from tests.servers.process import free_port
from transforms.feed.account import try_key
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret, parse_secret


@pytest.fixture
def feed() -> Iterator[PracticeFeed]:
    with PracticeFeed() as feed:
        yield feed


def test_a_good_key_passes_and_no_stream_is_opened(feed: PracticeFeed) -> None:
    (found,) = try_key(FeedSettings(feed.url, LiteralSecret(feed.api_key)))
    assert found.passed
    assert [request.path for request in feed.requests] == ["/v1/me"]


def test_a_wrong_key_does_not_pass(feed: PracticeFeed) -> None:
    (found,) = try_key(FeedSettings(feed.url, LiteralSecret("not-this-one")))
    assert found.passed is False
    assert "refused the key (status 401)" in found.cause
    assert "not-this-one" not in found.cause


PAGE = b"<html><title>Sign in</title></html>"


@pytest.mark.parametrize("status", [200, 302, 401, 403, 404])
@pytest.mark.parametrize("body", [PAGE, b'{"message":"Forbidden"}', b"Blocked"])
def test_an_answer_of_something_in_between_tells_nothing_of_the_key(
    feed: PracticeFeed, status: int, body: bytes
) -> None:
    feed.answer(status, body, path="/v1/me")
    (found,) = try_key(FeedSettings(feed.url, LiteralSecret(feed.api_key)))
    assert found.passed is None
    assert f"something in between answered {status} in the place of {feed.url} (" in found.cause


def test_a_key_that_cannot_be_read_does_not_pass(feed: PracticeFeed) -> None:
    (found,) = try_key(FeedSettings(feed.url, parse_secret("env:NOT_SET_ANYWHERE")))
    assert found.passed is False
    assert "NOT_SET_ANYWHERE" in found.cause


def test_a_service_that_is_away_tells_nothing_of_the_key() -> None:
    (found,) = try_key(FeedSettings(f"http://127.0.0.1:{free_port()}", LiteralSecret("key")))
    assert found.passed is None
    assert "could not be reached" in found.cause
