"""The status page in a real browser: of snapshots that a test makes up, and of the real job."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import pytest

from pipelines.local.history import History
from pipelines.local.proof import ProofStatus
from pipelines.local.snapshot import Snapshot
from pipelines.local.status import StatusServer
from pipelines.practice.events import generate
from pipelines.practice.feed_stream import Finish
from tests.browser.chromium import PHONE, Seen, chromium, opened
from tests.browser.scenes import LONG, SCENES, ULID
from tests.integration.job import SECRETS, world
from tests.pipelines.local.looks import AT, LIVE, delivery, destination, down, run
from tests.transforms.feed.journal.support import events, open_journal
from transforms.event import Batch
from transforms.feed.intake import Gap
from transforms.feed.journal.cursor import Books
from transforms.feed.status import ConnectionStatus, Phase
from transforms.write.delivery.ledger import Settlement

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

NAMES = ("bigquery", "datadog", "files", "kafka", "s3", "splunk", "audit", "a-destination-with-a-long-name")
HUGE = Books(received=2_000_000_100, delivered=1_000_000_000, dead_lettered=100, pending=1_000_000_000)
TROUBLED = run(
    *[
        destination(name, books=HUGE, lag=7000.0, delivery=delivery(name, unknown=12_345))
        for name in NAMES[1:]
    ],
    down(NAMES[0]),
    gaps=9,
    gap_open=True,
    latest_gaps=[
        Gap(AT - 60 * n, None if n == 1 else AT - 50 * n, "the connection was reset") for n in (1, 2)
    ],
    connections=[LIVE, ConnectionStatus(phase=Phase.WAITING, until=AT + 9, why="the stream was cut off")],
)


# The browser's own words of a server that is gone, and of a request that was under way when it went.
GONE = re.compile(
    r"net::ERR_(CONNECTION_(REFUSED|RESET|CLOSED)|EMPTY_RESPONSE|CONTENT_LENGTH_MISMATCH"
    r"|INCOMPLETE_CHUNKED_ENCODING)\b"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


class Shown:
    """A status server whose snapshot a test may change."""

    def __init__(self, scene: tuple[Snapshot, History | None] | None = None) -> None:
        self.snapshot, history = scene or (run(destination("files"), destination("splunk")), None)
        self.server = StatusServer("127.0.0.1", 0, self.look, history=history)

    def look(self) -> Snapshot:
        return self.snapshot

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"


@pytest.fixture
def shown() -> Iterator[Shown]:
    made = Shown()
    yield made
    made.server.close()


def scrolls_sideways(seen: Seen) -> bool:
    return bool(
        seen.page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
    )


CUT_OFF = """() => [...document.querySelectorAll('td, th, dd')]
    .filter((cell) => cell.scrollWidth > cell.clientWidth + 1)
    .filter((cell) => !cell.closest('thead') || cell.closest('thead').clientWidth > 1)
    .map((cell) => cell.textContent)"""


@pytest.mark.parametrize(
    "snapshot", [TROUBLED, run(), run(destination("files"))], ids=["eight", "none", "one"]
)
def test_any_number_of_destinations_fits_any_screen(
    browser: Browser, shown: Shown, snapshot: Snapshot
) -> None:
    shown.snapshot = snapshot
    with opened(browser, shown.url) as seen:
        assert seen.page.locator("#destinations tbody").count() == len(snapshot.destinations)
        for width in (320, 375, 600, 740, 800, 1000, 1100, 1920):
            seen.page.set_viewport_size({"width": width, "height": 800})
            assert not scrolls_sideways(seen), width
            assert seen.page.evaluate(CUT_OFF) == [], width
        assert seen.complaints == []


def test_what_the_ledger_proves_is_told(browser: Browser, shown: Shown) -> None:
    proof = ProofStatus("wh_1", AT - 3600, AT - 60, 3, 1, ("vc.issued",), told_at=AT - 30)
    shown.snapshot = run(destination("files"), proof=proof)
    with opened(browser, shown.url) as seen:
        text = seen.text()
        assert "Every event up to 11:59:00 UTC is accounted for. 3 events are missing" in text
        assert "The ledger of webhook wh_1 has no vc.issued." in text
        assert seen.complaints == []


def test_trouble_says_what_since_when_and_what_to_do(browser: Browser, shown: Shown) -> None:
    shown.snapshot = TROUBLED
    with opened(browser, shown.url) as seen:
        text = seen.text()
        assert "Server is busy (code 9, status 503). The events are kept." in text
        assert "(12 s), next try in 3.0 s." in text
        assert "If it lasts, look at the service." in text
        assert "Connection 2. Waiting to reconnect: the stream was cut off, next try in 9.0 s" in text
        assert "9, one open" in text
        seen.page.click("summary")
        assert "still open" in seen.text()
        assert seen.page.get_attribute("#verdict", "data-level") == "trouble"
        assert seen.page.title() == "▲ grantex-beam"


def test_wrong_books_and_dead_letters_by_cause_stand_out(browser: Browser, shown: Shown) -> None:
    wrong = Books(received=100, delivered=80, dead_lettered=7, pending=10, lost=1)
    letters = delivery("splunk", dead_lettered={"too_large": 5, "bad_time": 2})
    shown.snapshot = run(destination("splunk", books=wrong, delivery=letters))
    with opened(browser, shown.url) as seen:
        text = seen.text()
        assert "splunk · too large · 5" in text
        assert "splunk · bad time · 2" in text
        assert "not balanced" in text
        assert seen.number("books", "splunk", "Lost") == 1
        assert "2 events are not accounted for." in text
        assert not seen.page.locator("#plus-filtered").is_visible()


def test_what_is_not_asked_for_is_a_term_of_the_books(browser: Browser, shown: Shown) -> None:
    books = Books(received=100, delivered=50, dead_lettered=2, pending=8, filtered=40)
    shown.snapshot = run(destination("splunk", books=books), destination("files"))
    with opened(browser, shown.url) as seen:
        assert "received = delivered + dead-lettered + filtered + pending" in seen.text()
        assert seen.number("books", "splunk", "Filtered") == 40
        assert seen.number("books", "files", "Filtered") == 0


def test_webhooks_are_told_where_they_are_taken(browser: Browser, shown: Shown) -> None:
    shown.snapshot = run(destination("files"))
    with opened(browser, shown.url) as seen:
        assert "Webhooks" not in seen.text()
    counts = {"accepted": 5, "duplicate": 2, "bad_signature": 3, "method": 40}
    shown.snapshot = run(destination("files"), webhooks=counts)
    with opened(browser, shown.url) as seen:
        assert "7 taken, 3 refused" in seen.text()
        assert seen.complaints == []


def test_names_and_errors_are_text_whatever_they_hold(browser: Browser, shown: Shown) -> None:
    evil = '<img src=x onerror="document.title=1"><script>alert(1)</script>'
    status = delivery(evil, last_error=evil, last_error_at=AT, dead_lettered={evil: 1})
    bad = replace(LIVE, reconnects=2, last_problem=evil)
    gaps = [Gap(AT, None, evil)]
    shown.snapshot = run(
        destination(evil, delivery=status), connections=[bad], gaps=1, gap_open=True, latest_gaps=gaps
    )
    with opened(browser, shown.url) as seen:
        assert evil in seen.text()
        assert seen.page.locator("img, main script").count() == 0
        assert seen.complaints == []


def test_the_search_box_says_where_an_event_is(browser: Browser, shown: Shown, tmp_path: Path) -> None:
    evil = "<img src=x>"
    journal = open_journal(tmp_path, receipt_retention=86_400.0)
    cursor, _ = journal.cursor("files"), journal.cursor("splunk")
    taken = events(0, 2)
    journal.append(taken, [], connection="sse 1")
    batch = Batch(taken, range(2), attempts=1)
    cursor.commit([], [batch])
    cursor.commit([Settlement(batch, [0], [1], AT, "/archive/a.ndjson", [evil])], [])
    shown.server.close()
    shown.server = StatusServer("127.0.0.1", 0, shown.look, state_dir=tmp_path)
    with opened(browser, shown.url) as seen:
        for event_id, words in (
            ("evt_00000000", ["delivered", "/archive/a.ndjson", "pending"]),
            (" evt_00000001 ", ["dead letter", evil]),
            (evil, ["Not received, and no gap is on record when it was made."]),
        ):
            seen.page.fill("#where-id", event_id)
            seen.page.press("#where-id", "Enter")
            for word in words:
                seen.wait_for(
                    f"document.getElementById('where-answer').innerText.includes({json.dumps(word)})"
                )
        assert seen.page.locator("main img").count() == 0
        assert seen.complaints == []
    journal.close()


def test_destinations_come_and_go_without_reloading(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url) as seen:
        shown.snapshot = run(destination("kafka"), destination("splunk"))
        seen.wait_for(
            "document.body.innerText.includes('kafka') && !document.body.innerText.includes('files')"
        )
        assert seen.page.locator("#books tbody").count() == 2


def test_job_that_is_gone_is_named_with_the_time_of_the_last_look(browser: Browser, shown: Shown) -> None:
    with opened(browser, shown.url) as seen:
        shown.server.close()
        seen.wait_for("!document.getElementById('gone').hidden")
        assert "The job is not reachable. The last look was at " in seen.text()
        port = shown.server.port
        shown.server = StatusServer("127.0.0.1", port, shown.look)
        seen.wait_for("document.getElementById('gone').hidden")
        assert [complaint for complaint in seen.complaints if not GONE.search(complaint)] == []


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[Shown]:
    """A made-up job with an hour behind it."""
    made = Shown(SCENES[request.param]())
    yield made
    made.server.close()


def seen_at(browser: Browser, scene: Shown, **more: Any) -> contextlib.AbstractContextManager[Seen]:
    """A page whose clock stands at the time of the scene."""
    return opened(browser, scene.url, at=scene.snapshot.at, **more)


@pytest.mark.parametrize("scene", SCENES, indirect=True)
def test_every_job_fits_every_screen_and_is_told_without_a_complaint(browser: Browser, scene: Shown) -> None:
    with seen_at(browser, scene) as seen:
        seen.wait_for("!document.getElementById('received').hidden")
        for width in (320, 375, 600, 800, 1000, 1100, 1920):
            seen.page.set_viewport_size({"width": width, "height": 800})
            assert not scrolls_sideways(seen), width
            assert seen.page.evaluate(CUT_OFF) == [], width
        assert seen.complaints == []
        assert {urlsplit(asked).netloc for asked in seen.asked} == {urlsplit(scene.url).netloc}


@pytest.mark.parametrize("scene", ["needing_you"], indirect=True)
def test_the_last_hour_is_drawn_and_said_in_words(browser: Browser, scene: Shown) -> None:
    with seen_at(browser, scene) as seen:
        seen.wait_for("!document.getElementById('received').hidden")
        labels = seen.page.evaluate(
            "[...document.querySelectorAll('svg')].map((e) => e.getAttribute('aria-label'))"
        )
        assert labels[0].startswith("Received a second, last hour, with 1 gap: now ")
        assert labels[-3].startswith("Delivered a second to splunk, last hour: now 0/s, at most ")
        assert labels[-1] == "Lag to splunk, last hour: now 8 min, at most 8 min at 12:00:00"
        assert len(labels) == 1 + 3 * len(scene.snapshot.destinations)
        assert seen.page.inner_text("#marks") == "▼ gap 46 s"
        assert seen.page.inner_text("#ticks").split()[0] == "11:00"
        # The band of the gap is where the gap was: 18 to 19 minutes before the end.
        at, width = seen.page.evaluate(BAND)
        assert pytest.approx(at, abs=0.1) == 100 * (3600 - 1130) / 3600
        assert width == pytest.approx(100 * 46 / 3600, abs=0.1)


BAND = """() => {
    const band = document.querySelector('#received-line .gap-band');
    return [Number(band.getAttribute('x')), Number(band.getAttribute('width'))];
}"""


@pytest.mark.parametrize("scene", ["needing_you"], indirect=True)
def test_targets_and_who_has_to_act_are_said(browser: Browser, scene: Shown) -> None:
    with seen_at(browser, scene) as seen:
        text = seen.text()
        assert "kafka-1.acme.example:9093, topic grantex-events" in text
        assert "splunk needs you" in text
        assert "This does not heal by itself" in text
        assert "heals itself" not in text
        scene.snapshot = replace(scene.snapshot, destinations=[down("kafka")])
        seen.wait_for("document.body.innerText.includes('heals itself')")


@pytest.mark.parametrize("scene", ["needing_you"], indirect=True)
def test_on_a_phone_what_needs_somebody_comes_first(browser: Browser, scene: Shown) -> None:
    with seen_at(browser, scene, size=PHONE) as seen:
        tops = sorted(seen.page.evaluate(TOPS))
        assert [name for _, name in tops] == ["splunk", "bigquery", "datadog", "files", "kafka", "s3"]


TOPS = """() => [...document.querySelectorAll('#destinations tbody')]
    .map((row) => [row.getBoundingClientRect().top, row.querySelector('.name').textContent])"""


@pytest.mark.parametrize("scene", ["needing_you"], indirect=True)
def test_the_latest_dead_letters_are_told_by_cause_and_a_click_asks_where_one_is(
    browser: Browser, scene: Shown
) -> None:
    with seen_at(browser, scene) as seen:
        letters = seen.page.locator("#letter-list li")
        assert letters.nth(0).inner_text().splitlines()[0] == "s3 · bad created at · 3, the last 5 min ago"
        assert letters.nth(0).locator("button").all_inner_texts() == [f"{ULID}{n}" for n in (1, 2, 3)]
        letters.nth(1).locator("button").click()
        assert seen.page.input_value("#where-id") == f"{ULID}0"
        seen.wait_for("document.getElementById('where-answer').innerText !== ''")


@pytest.mark.parametrize("scene", ["full_journal"], indirect=True)
def test_when_the_journal_will_be_full_is_foretold(browser: Browser, scene: Shown) -> None:
    with seen_at(browser, scene) as seen:
        text = seen.text()
        assert "At this rate the journal is full in about 42 min; then the feed is not read." in text
        assert "9.3 GiB, 93 % full" in text
        assert "in about 42 min" in seen.page.inner_text("#feed-facts")


@pytest.mark.parametrize("scene", ["just_started"], indirect=True)
def test_a_job_that_has_just_started_shows_minutes_and_what_was_not_tried(
    browser: Browser, scene: Shown
) -> None:
    with seen_at(browser, scene) as seen:
        seen.wait_for("!document.getElementById('received').hidden")
        text = seen.text()
        assert "last 5 minutes" in text
        assert "not tried yet" in text
        assert "Tried at the start (the topic and its settings); no event came yet." in text
        assert "start" in seen.page.inner_text("#marks")


@pytest.mark.parametrize("scene", ["eight"], indirect=True)
def test_many_gaps_are_all_marked_and_their_names_do_not_lie_on_each_other(
    browser: Browser, scene: Shown
) -> None:
    with seen_at(browser, scene, size=PHONE) as seen:
        seen.wait_for("!document.getElementById('received').hidden")
        assert seen.page.locator("#received-line .gap-band").count() == 50
        boxes = seen.page.evaluate(NAMED)
        assert len(boxes) > 1
        assert all(left >= right for (left, _), (_, right) in pairwise(boxes))
        assert LONG in seen.text()


NAMED = """() => [...document.querySelectorAll('#marks .gap-mark')].filter((e) => e.textContent.length > 1)
    .map((e) => e.getBoundingClientRect()).map((box) => [box.left, box.right])"""


CONTRAST = """() => {
    const parse = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (e) => {
        for (; e; e = e.parentElement) {
            const color = parse(getComputedStyle(e).backgroundColor);
            if (color.length === 3 || color[3] > 0) return color;
        }
        return [255, 255, 255];
    };
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const poor = [];
    while (texts.nextNode()) {
        const e = texts.currentNode.parentElement;
        if (!texts.currentNode.textContent.trim() || !e.checkVisibility()) continue;
        const [a, b] = [light(parse(getComputedStyle(e).color)), light(behind(e))].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) poor.push(`${ratio.toFixed(2)} ${e.textContent.slice(0, 40)}`);
    }
    return poor;
}"""


DRAWN = """() => {
    const light = (color) => color.match(/[\\d.]+/g).map(Number).map((v) => v / 255)
        .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const card = light(getComputedStyle(document.querySelector('.chart')).backgroundColor);
    return ['.line', '.gap-band'].map((name) => light(getComputedStyle(document.querySelector(name)).stroke))
        .map((one) => (Math.max(one, card) + 0.05) / (Math.min(one, card) + 0.05));
}"""


@pytest.mark.parametrize("scene", ["needing_you"], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_lines_and_marks_have_contrast(
    browser: Browser, scene: Shown, scheme: Literal["light", "dark"]
) -> None:
    """WCAG 2.2, 1.4.11: 3 to 1; and 1.4.3 for the text of a page with everything on it."""
    with seen_at(browser, scene, scheme=scheme) as seen:
        seen.wait_for("!document.getElementById('received').hidden")
        assert min(seen.page.evaluate(DRAWN)) > 3
        assert seen.page.evaluate(CONTRAST) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(browser: Browser, shown: Shown, scheme: Literal["light", "dark"]) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1."""
    shown.snapshot = TROUBLED
    with opened(browser, shown.url, scheme=scheme) as seen:
        assert seen.page.evaluate(CONTRAST) == []


def test_reads_as_headings_and_tables_and_moves_nothing_when_asked_not_to(
    browser: Browser, shown: Shown
) -> None:
    with opened(browser, shown.url, PHONE, motion="reduce") as seen:
        headings = seen.page.get_by_role("heading").all_inner_texts()
        assert [heading.split(" ")[0] for heading in headings] == [
            "grantex-beam",
            "Feed",
            "Destinations",
            "Where",
            "Requests",
            "Books",
        ]
        table = seen.page.get_by_role("table").first  # still a table where it looks like cards
        assert table.get_by_role("columnheader").count() == 7
        assert table.get_by_role("rowheader").all_inner_texts() == ["files", "splunk"]
        assert seen.page.evaluate("document.getAnimations().length") == 0
        assert seen.page.get_by_role("status").inner_text().startswith("All is well.")


MARKER = "for-nobodys-eyes-but-the-destinations"


def marked(count: int) -> list[bytes]:
    return [
        event.replace(b'"data":{', b'"data":{"note":"%s",' % MARKER.encode())
        for event in islice(generate(), count)
    ]


def test_real_job_from_first_numbers_to_its_end(browser: Browser, tmp_path: Path) -> None:
    with world(tmp_path, forks=True) as around, around.live_job() as job:
        url = f"http://127.0.0.1:{job.port}/"
        with opened(browser, url) as seen:
            events = marked(300)
            assert all(MARKER.encode() in event for event in events)
            around.feed.publish_many(events[:100])
            for name in ("files", "splunk"):
                seen.wait_for(f"document.querySelector('main').innerText.includes('{name}')")
                job.wait_until(lambda name=name: seen.number("destinations", name, "Delivered") == 100, name)  # type: ignore[misc]
            around.splunk.busy()
            around.feed.publish_many([*events[100:200], MARKER.encode() + b" is no JSON"])
            seen.wait_for("document.body.innerText.includes('splunk is down; its events are kept')")
            during = seen.text()
            assert "Server is busy, code 9, status 503" in during
            assert seen.number("destinations", "splunk", "Pending") == 100
            job.wait_until(lambda: seen.number("destinations", "files", "Delivered") == 200, "files go on")
            around.splunk.busy(0)
            seen.wait_for("document.getElementById('verdict').dataset.level === 'good'")
            job.wait_until(lambda: seen.number("destinations", "splunk", "Delivered") == 200, "recovery")
            assert seen.number("work", "splunk", "Retries") >= 1
            around.feed.finish_streams(Finish.CUT)
            seen.wait_for("document.getElementById('gaps-title').textContent === '1 gap on record'")
            after = seen.text()
            pages = [job.get(path)[1] for path in ("/", "/status.json", "/metrics", "/healthz", "/readyz")]
            assert seen.complaints == []
            assert job.drain() == 0
            seen.wait_for("!document.getElementById('gone').hidden")
            assert {urlsplit(asked).netloc for asked in seen.asked} == {f"127.0.0.1:{job.port}"}
        everything = "".join([during, after, *pages])
        assert '"dead_letters":1' in everything
        for value in (MARKER, *SECRETS.values(), "grnt_", "evt_"):
            assert value not in everything
