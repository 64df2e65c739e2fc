"""Every way in which a connection ends has its wait and its plain words."""

from __future__ import annotations

import re

import httpx
import pytest

from transforms.feed.reconnect import CutAge, Decision, Ending, EndingKind, Streak, decide, refusal
from transforms.feed.request import FeedSettings
from transforms.secret import LiteralSecret, remember


def low(a: float, b: float) -> float:
    return a


def high(a: float, b: float) -> float:
    return b


def after(
    ending: Ending, streak: Streak | None = None, others: int = 0, retry: float | None = None
) -> tuple[Decision, Decision]:
    """The decisions at both ends of the dice."""
    streak = (streak or Streak()).after(ending)
    return decide(ending, streak, others, retry, low), decide(ending, streak, others, retry, high)


def status(number: int, **fields: object) -> Ending:
    return Ending(EndingKind.STATUS, status=number, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [kind for kind in EndingKind if kind is not EndingKind.STATUS])
def test_each_ending_is_retried_with_full_jitter_up_to_30_s_and_never_given_up(kind: EndingKind) -> None:
    streak = Streak()
    bounds = []
    for _ in range(2000):
        soonest, latest = after(Ending(kind), streak)
        streak = streak.after(Ending(kind))
        assert soonest.wait == 0.0
        assert not latest.stop
        assert re.search(r"[a-z]{3} [a-z]", latest.reason)
        bounds.append(latest.wait)
    assert bounds[:7] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert bounds[-1] == 30.0


def test_the_first_reconnect_after_a_healthy_connection_is_nearly_immediate() -> None:
    streak = Streak()
    for _ in range(20):
        streak = streak.after(Ending(EndingKind.REFUSED))
    _, latest = after(Ending(EndingKind.CUT, lived=60.0), streak)
    assert latest.wait == 0.5
    _, latest = after(Ending(EndingKind.CUT, lived=0.2), streak)
    assert latest.wait == 30.0


def test_the_servers_retry_is_the_least_wait() -> None:
    soonest, latest = after(Ending(EndingKind.END, lived=60.0), retry=3.0)
    assert (soonest.wait, latest.wait) == (3.0, 3.5)
    soonest, _ = after(Ending(EndingKind.END), retry=1e9)
    assert soonest.wait == 300.0


def test_the_detail_is_told() -> None:
    assert "(no route)" in after(Ending(EndingKind.UNREACHABLE, "no route"))[0].reason


def test_204_stops() -> None:
    assert after(status(204))[0].stop


def test_401_rereads_the_secret_soon_and_then_twice_a_minute() -> None:
    soonest, latest = after(status(401))
    assert latest.wait <= 0.5
    assert soonest.reread_secret
    assert "rejected the API key" in soonest.reason
    streak = Streak().after(status(401))
    for _ in range(50):
        soonest, latest = after(status(401), streak)
        streak = streak.after(status(401))
        assert (soonest.wait, latest.wait, latest.reread_secret) == (30.0, 60.0, True)


def test_a_401_after_other_failures_is_still_the_first_401() -> None:
    streak = Streak().after(Ending(EndingKind.REFUSED)).after(Ending(EndingKind.REFUSED))
    assert after(status(401), streak)[1].wait <= 0.5


def test_too_many_connections_with_none_open_waits_out_the_leaked_slots() -> None:
    soonest, latest = after(status(429, code="TOO_MANY_CONNECTIONS", retry_after=1.0))
    assert soonest.wait > 300.0
    assert latest.wait < 360.0
    assert "five minutes" in soonest.reason


def test_too_many_connections_with_another_open_carries_on_with_fewer() -> None:
    soonest, _ = after(status(429, code="TOO_MANY_CONNECTIONS"), others=2)
    assert soonest.wait > 300.0
    assert "carrying on with 2 open" in soonest.reason


def test_rate_limit_exceeded_obeys_retry_after() -> None:
    soonest, latest = after(status(429, code="RATE_LIMIT_EXCEEDED", retry_after=17.0))
    assert (soonest.wait, latest.wait) == (17.0, 18.0)
    soonest, _ = after(status(429, code="RATE_LIMIT_EXCEEDED"))
    assert soonest.wait == 60.0


def test_503_obeys_retry_after() -> None:
    assert after(status(503, retry_after=9.0))[0].wait == 9.0
    assert after(status(503))[1].wait == 0.5
    assert after(status(503, retry_after=1e12))[0].wait == 3600.0


def answer(code: int, body: bytes) -> httpx.Response:
    return httpx.Response(code, stream=httpx.ByteStream(body))


OWN = b'{"message":"said so","code":"X"}'
FRAMEWORK_S = b'{"statusCode":404,"error":"Not Found","message":"Route not found"}'
PAGE = b"<html><h1>Blocked by web filter</h1></html>"


@pytest.mark.parametrize("code", [400, 401, 403, 404, 407, 429])
def test_a_refusal_of_something_in_between_is_not_taken_for_the_service_s(code: int) -> None:
    for body, shown in [(PAGE, 'a page "Blocked by web filter"'), (b'{"message":"Forbidden"}', "Forbidden")]:
        ending = refusal(answer(code, body), 0.0)
        assert ending is not None
        for decision in after(ending):
            assert decision.reason.startswith(f"something in between answered {code}")
            assert shown in decision.reason
            assert "API key" not in decision.reason


@pytest.mark.parametrize("body", [OWN, FRAMEWORK_S, b"", b"\r\n"])
def test_the_service_s_own_refusal_is_told_as_its_own(body: bytes) -> None:
    ending = refusal(answer(401, body), 0.0)
    assert ending is not None
    assert "the service rejected the API key (401)" in after(ending)[0].reason


def test_a_key_that_is_echoed_is_taken_out_before_the_words_are_cut() -> None:
    key = "gx_live_" + "s3cr3t" * 5
    remember(key)
    for body in (
        b'{"code":"X","message":"%s%s"}' % (b"x" * 190, key.encode()),
        b"<p>%s<b>denied %s" % (b"<br>" * 1014, key.encode()),  # cut in the key, and then without its tags
    ):
        for code in (401, 500):
            ending = refusal(answer(code, body), 0.0)
            assert ending is not None
            assert "gx_live" not in after(ending)[0].reason


def test_a_gateway_s_page_is_part_of_the_reason() -> None:
    ending = refusal(answer(502, b"<h1>Bad Gateway</h1>"), 0.0)
    assert ending is not None
    assert after(ending)[0].reason == 'the service answered 502 (a page "Bad Gateway")'


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (403, "may not read"),
        (404, "--feed_url"),
        (302, "redirects"),
        (500, "500"),
        (400, "400"),
        (202, "202"),
    ],
)
def test_other_statuses_are_retried_with_plain_words(code: int, words: str) -> None:
    streak = Streak()
    for _ in range(100):
        streak = streak.after(status(code))
    for decision in after(status(code, detail="said so"), streak):
        assert words in decision.reason
        assert decision.wait <= 60.0
        assert not decision.stop


def test_a_stream_that_was_cut_while_it_was_live_is_opened_again_at_once() -> None:
    """To be cut is normal. One that ends within its first second is backed off from."""
    streak = Streak()
    for _ in range(50):
        streak = streak.after(Ending(EndingKind.CUT, lived=1.1, was_live=True))
    assert streak.failures == 1
    for lived, was_live in ((0.9, True), (9.9, False)):
        streak = streak.after(Ending(EndingKind.CUT, lived=lived, was_live=was_live))
    assert streak.failures == 3


def cut_at(*ages: float, kind: EndingKind = EndingKind.CUT, was_live: bool = True) -> CutAge:
    learnt = CutAge()
    for age in ages:
        learnt.ended("sse", Ending(kind, lived=age, was_live=was_live))
    return learnt


def test_three_streams_that_ended_at_the_same_age_tell_when_the_next_one_will() -> None:
    learnt = cut_at(301.0, 302.5, 300.0)
    assert (learnt.is_near("sse", 289.9), learnt.is_near("sse", 290.0)) == (False, True)
    assert not learnt.is_near("websocket", 1e9)
    for lived in (40.0, 3.0):
        learnt.ended("sse", Ending(EndingKind.RESET, lived=lived, was_live=True))
        assert learnt.is_near("sse", 290.0)  # a cut like any other unlearns nothing
    learnt.ended("sse", Ending(EndingKind.RESET, lived=90.0, was_live=True))
    assert not learnt.is_near("sse", 1e9)


@pytest.mark.parametrize(
    "learnt",
    [
        cut_at(300.0, 300.0),
        cut_at(300.0, 294.9, 300.0),
        cut_at(2.0, 3.0, 4.0),  # no platform's rule
        cut_at(25.0, 3.0, 25.0, 8.0, 25.0),  # nor this
        cut_at(75.0, 75.0, 75.0, kind=EndingKind.SILENCE),
        cut_at(30.0, 30.0, 30.0, kind=EndingKind.STATUS, was_live=False),
    ],
)
def test_other_ends_tell_nothing(learnt: CutAge) -> None:
    assert not learnt.is_near("sse", 1e9)


def test_silence_is_more_than_a_keepalive_s_interval_and_at_most_forty_seconds() -> None:
    assert 30 < FeedSettings("https://feed.test", LiteralSecret("key")).read_timeout <= 40


def test_a_stream_that_is_cut_young_again_and_again_is_away_for_two_seconds_at_most() -> None:
    """The other one is alone meanwhile; and so it costs no more than some fifty requests a minute."""
    streak = Streak()
    for _ in range(50):
        streak = streak.after(Ending(EndingKind.CUT, lived=0.1, was_live=True))
    assert 1.0 <= decide(Ending(EndingKind.CUT), streak, 1, None, high).wait <= 2.0
    for _ in range(50):
        streak = streak.after(Ending(EndingKind.REFUSED))
    assert decide(Ending(EndingKind.REFUSED), streak, 1, None, high).wait == 30.0
