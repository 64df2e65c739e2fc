"""A feed that is cut, reset, refuses and sends rubbish: no half event, none twice, all of it on record."""

from __future__ import annotations

from itertools import islice

from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Finish
from tests.integration.evidence import ids_in_files, lines_in_files
from tests.integration.job import Job, World
from transforms.dead_letter import DeadLetter
from transforms.write.dead_letters.directory import read_dead_letters

RUBBISH = [
    b"this is no JSON \xff\xfe",
    b'{"type":"grant.created","data":{"no":"id"}}',
    b"[1,2,3]",
    b'{"id":"","type":"empty.id"}',
]


def stray_causes(around: World) -> dict[bytes, str]:
    """Cause by original bytes, of what the feed sent that was no event."""
    letters = list(read_dead_letters(around.dead_letters)) if around.dead_letters.exists() else []
    return {one.raw: one.cause for one in letters if not one.cause.startswith("feed_gap")}


def gaps(around: World) -> list[DeadLetter]:
    return [one for one in read_dead_letters(around.dead_letters) if one.cause.startswith("feed_gap")]


def reopened(around: World, job: Job, streams: int) -> None:
    job.wait_until(lambda: len(around.feed.streams) > streams, "it opened a stream again")


def test_the_feed_s_faults_are_survived_and_on_record(around: World) -> None:
    events = generate()
    feed = around.feed
    sent: list[bytes] = []

    def publish(count: int) -> None:
        batch = list(islice(events, count))
        sent.extend(batch)
        feed.publish_many(batch)
        assert around.splunk.wait_for(len(sent), timeout=30)

    with around.live_job() as job:
        publish(50)

        half = next(events)
        streams = len(feed.streams)
        feed.cut_inside(half)
        reopened(around, job, streams)
        publish(50)

        streams = len(feed.streams)
        feed.finish_streams(Finish.RESET)
        reopened(around, job, streams)
        publish(50)

        streams = len(feed.streams)
        feed.answer_streams(429, "RATE_LIMIT_EXCEEDED", "slow down", {"retry-after": "1"})
        feed.answer_streams(500, "INTERNAL_ERROR", "the database is away")
        feed.finish_streams(Finish.END)
        reopened(around, job, streams)
        publish(50)

        feed.publish_many(RUBBISH)
        again, conflict = sent[0], sent[1].replace(b'"data":{', b'"data":{"other":1,')
        feed.publish_many([again, conflict])
        publish(50)
        job.wait_until(lambda: len(stray_causes(around)) == 5, "all rubbish is in the dead letter file")
        job.wait_until_settled("files", "splunk")
        metrics = job.metrics()
        assert job.drain() == 0

    assert sorted(lines_in_files(around.out)) == sorted(sent)
    assert sorted(bytes(one.event) for one in around.splunk.events) == sorted(sent)
    causes = stray_causes(around)
    assert causes.keys() == {*RUBBISH, conflict}
    assert causes[conflict].startswith("id_conflict")
    assert causes[RUBBISH[0]].startswith("not_utf8")
    assert len(gaps(around)) == 3
    assert metrics["grantex_feed_gaps_total", ""] == 3
    assert metrics["grantex_events_received_total", ""] == len(sent)
    for words in ("cut off", "reset", "429", "answered 500", "feed gap closed"):
        assert words in job.log
    assert half[:30].decode() not in job.log


def test_slots_that_are_all_taken_are_not_asked_for_again_and_it_says_so(around: World) -> None:
    message = "Too many concurrent connections"
    around.feed.answer_streams(429, "TOO_MANY_CONNECTIONS", message, times=100)
    with around.job() as job:
        job.wait_for_log("all five stream slots of this account are taken")
        status, body = job.get("/readyz")
        assert (status, "slots" in body) == (503, True)
        assert job.metric("grantex_feed_connections") == 0
        assert job.drain() == 0
    streams = [request for request in around.feed.requests if request.path == "/v1/events/stream"]
    assert len(streams) == 1


def test_credentials_that_are_refused_are_shown_and_taken_anew_when_rotated(around: World) -> None:
    key, token = around.place / "key", around.place / "token"
    key.write_text(around.feed.api_key)
    token.write_text("not-the-right-one")
    flags = {"feed_api_key": f"file:{key}", "splunk_hec_token": f"file:{token}"}
    with around.live_job(**flags) as job:
        around.feed.publish_many(islice(generate(), 30))
        job.wait_until(lambda: job.metric("grantex_circuit_open", "splunk") == 1, "its circuit opened")
        job.wait_for_log("splunk is left alone for now")
        assert "403" in job.log
        job.wait_until(lambda: len(ids_in_files(around.out)) == 30, "files had it all")

        # the new key is there before the old one is refused, as in a rotation
        streams = len(around.feed.streams)
        around.feed.api_keys.clear()
        around.feed.api_keys["the-next-key"] = "dev_practice"
        key.write_text("the-next-key")
        token.write_text(around.splunk.token)
        around.feed.finish_streams(Finish.CUT)
        job.wait_for_log("rejected the API key (401)")
        job.wait_until(lambda: len(around.feed.streams) > streams, "it came back with the new key")
        around.feed.publish_many(islice(generate(), 30))
        assert around.splunk.wait_for(60, timeout=60)
        job.wait_until(lambda: job.metric("grantex_circuit_open", "splunk") == 0, "its circuit closed")
        assert "splunk takes events again" in job.log
        assert job.drain() == 0
    assert len(set(ids_in_files(around.out))) == 60
