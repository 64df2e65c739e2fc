"""The status server's page and /status.json: what they answer, to whom, and what they never hold."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from typing import Any

import msgspec
import pytest

from pipelines.local.history import History
from pipelines.local.inbound import REQUEST_SECONDS
from pipelines.local.listener import PortTaken
from pipelines.local.snapshot import Snapshot, StandingBy
from pipelines.local.status import StatusServer
from tests.pipelines.local.looks import AT, LIVE, delivery, destination, down, run
from tests.transforms.write.manual_clock import ManualClock
from transforms.feed.intake import Gap
from transforms.feed.status import Phase


@pytest.fixture(scope="module")
def server() -> Iterator[StatusServer]:
    server = StatusServer("127.0.0.1", 0, lambda: run(destination("files"), down("splunk")))
    yield server
    server.close()


def ask(
    server: StatusServer, path: str, method: str = "GET", host: str | None = "127.0.0.1"
) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.putrequest(method, path, skip_host=True)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/?from=a+bookmark", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/charts.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
        ("/status.json", "application/json"),
        ("/metrics", "text/plain"),
    ],
)
def test_every_answer_is_of_its_type_not_kept_and_loads_nothing_from_elsewhere(
    server: StatusServer, path: str, kind: str
) -> None:
    answer, body = ask(server, path)
    assert answer.status == 200
    assert body
    assert answer.headers.get_content_type() == kind
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")


def test_head_answers_as_get_without_a_body(server: StatusServer) -> None:
    answer, body = ask(server, "/", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_get_and_head(server: StatusServer, method: str) -> None:
    answer, body = ask(server, "/status.json", method)
    assert answer.status in (405, 501)
    assert b"splunk" not in body


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8787", "localhost:1", "LOCALHOST", "[::1]:8787", "127.0.0.5", None]
)
def test_names_of_this_machine_are_answered(server: StatusServer, host: str | None) -> None:
    assert ask(server, "/status.json", host=host)[0].status == 200


@pytest.mark.parametrize(
    "host", ["evil.example:8787", "127.0.0.1.evil.example", "10.0.0.1", "", "[", "0.0.0.0"]
)
@pytest.mark.parametrize("path", ["/", "/status.json", "/metrics"])
def test_another_sites_name_for_this_machine_is_refused(server: StatusServer, host: str, path: str) -> None:
    """DNS rebinding: a page from elsewhere makes its own host name point at loopback."""
    answer, body = ask(server, path, host=host)
    assert answer.status == 421
    assert b"splunk" not in body


def test_bound_to_all_addresses_any_name_is_answered() -> None:
    """Kubernetes probes by the pod's address, people by a service's name."""
    server = StatusServer("0.0.0.0", 0, run)
    try:
        assert ask(server, "/status.json", host="grantex-beam.monitoring:8787")[0].status == 200
    finally:
        server.close()


def test_taken_port_is_named(server: StatusServer) -> None:
    with pytest.raises(PortTaken, match=f"port {server.port} is taken on 127.0.0.1: another process"):
        StatusServer("127.0.0.1", server.port, run)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "no.such.host.invalid", "a" * 64])
def test_a_host_that_cannot_be_listened_on_is_named(host: str) -> None:
    with pytest.raises(PortTaken, match=f"{host}:0 cannot be listened on"):
        StatusServer(host, 0, run)


def drip(server: StatusServer) -> socket.socket:
    """A client that has begun its request and goes on for as long as it may."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=5)
    client.sendall(b"GET /status.json HTTP/1.1\r\nX: ")
    return client


def is_ended(client: socket.socket) -> bool:
    """True once the server has closed the connection."""
    try:
        while client.recv(1000):
            pass
    except ConnectionResetError:
        pass
    except TimeoutError:
        return False
    return True


def test_a_client_that_drips_its_request_has_its_time_in_all() -> None:
    clock = ManualClock()
    server = StatusServer("127.0.0.1", 0, run, clock.monotonic)
    try:
        client = drip(server)
        assert ask(server, "/healthz")[0].status == 200  # the first one is accepted, too
        clock.advance(REQUEST_SECONDS - 0.1)
        client.sendall(b"x")
        assert ask(server, "/healthz")[0].status == 200
        clock.advance(0.1)
        assert is_ended(client)
    finally:
        server.close()


def test_clients_that_drip_are_bounded_and_keep_nobody_else_out() -> None:
    clock = ManualClock()  # stands still: nobody's time is over
    server = StatusServer("127.0.0.1", 0, run, clock.monotonic)
    try:
        clients = [drip(server) for _ in range(42)]
        assert ask(server, "/healthz")[0].status == 200
        # Of 43 the first eleven had to go, and none of the other 32.
        assert all(is_ended(client) for client in clients[:11])
        for client in clients[11:]:
            client.sendall(b"\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
            client.close()
    finally:
        server.close()


def test_unknown_path_says_what_there_is(server: StatusServer) -> None:
    answer, body = ask(server, "/../../etc/passwd")
    assert answer.status == 404
    assert b"/status.json" in body


def json_of(snapshot: Snapshot) -> dict[str, Any]:
    server = StatusServer("127.0.0.1", 0, lambda: snapshot)
    try:
        found: dict[str, Any] = msgspec.json.decode(ask(server, "/status.json")[1])
        return found
    finally:
        server.close()


def test_status_json_has_the_feed_and_each_destination() -> None:
    gaps = [Gap(AT - 60, None, "the connection was reset")]
    status = json_of(run(destination("files"), down("splunk"), gaps=7, gap_open=True, latest_gaps=gaps))
    assert (status["at"], status["started_at"], status["level"]) == (AT, AT - 90, "trouble")
    assert status["feed"]["connections"][0]["phase"] == "live"
    assert status["feed"]["latest_gaps"] == [
        {"since": AT - 60, "until": None, "reason": "the connection was reset"}
    ]
    files, splunk = status["destinations"]
    assert files["books"] == {
        "received": 100,
        "delivered": 90,
        "dead_lettered": 0,
        "pending": 10,
        "lost": 0,
        "balanced": True,
        "filtered": 0,
    }
    assert splunk["circuit"] == {"open": True, "since": AT - 12, "next_probe": AT + 3}
    assert (splunk["state"], splunk["retries"], splunk["batches_waiting"]) == ("down", 4, 3)


def test_status_json_has_the_latest_dead_letters_by_cause_who_acts_and_when_the_journal_is_full() -> None:
    letters = {"too_large": [("evt_2", AT - 1), ("evt_1", AT - 2)]}
    item = destination(
        "s3", delivery=delivery("s3", dead_lettered={"too_large": 2}, latest_dead_letters=letters)
    )
    feed = {"letters": {"not_json": 1}, "latest_letters": {"not_json": [("", AT - 3)]}}
    status = json_of(run(item, down("splunk"), full_at=AT + 60, **feed))
    s3, splunk = status["destinations"]
    assert s3["latest_dead_letters"] == {
        "too_large": [{"id": "evt_2", "at": AT - 1}, {"id": "evt_1", "at": AT - 2}]
    }
    assert status["feed"]["written_dead_letters"] == {"not_json": 1}
    assert status["feed"]["latest_dead_letters"] == {"not_json": [{"id": "", "at": AT - 3}]}
    assert (s3["heals_itself"], splunk["heals_itself"]) == (False, True)
    assert status["journal_full_at"] == AT + 60


def test_the_last_hour_is_answered_and_is_empty_where_nobody_looked(server: StatusServer) -> None:
    assert msgspec.json.decode(ask(server, "/history.json")[1])["times"] == []
    history = History(run, ManualClock())
    history.add(run(destination("files")))
    with_one = StatusServer("127.0.0.1", 0, run, history=history)
    try:
        answer, body = ask(with_one, "/history.json")
        assert answer.headers.get_content_type() == "application/json"
        assert list(msgspec.json.decode(body)["destinations"]) == ["files"]
    finally:
        with_one.close()


def test_totals_before_a_lanes_restart_are_counted_on() -> None:
    before = delivery(
        "splunk", retries=4, dead_lettered={"too_large": 2}, last_error="busy", last_error_at=AT
    )
    after = delivery("splunk", retries=1, dead_lettered={"too_large": 1, "bad_time": 1}).after(before)
    (splunk,) = json_of(run(destination("splunk", delivery=after, restarts=1)))["destinations"]
    assert (splunk["retries"], splunk["dead_letters"]) == (5, {"too_large": 3, "bad_time": 1})
    assert (splunk["last_error"], splunk["last_error_at"]) == ("busy", AT)


def test_page_asks_for_nothing_elsewhere_and_makes_no_html_of_text() -> None:
    for name in ("index.html", "page.css", "page.js", "charts.js", "icon.svg"):
        text = (resources.files("pipelines.local") / "page" / name).read_text()
        elsewhere = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert not elsewhere
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|style=|onclick", text
        )


def test_health_is_what_it_is_told_and_takes_no_snapshot() -> None:
    """A snapshot waits for the journal, and while another program locks that a restart helps nobody."""
    faults: list[str] = []

    def look() -> Snapshot:
        raise AssertionError("no snapshot was called for")

    server = StatusServer("127.0.0.1", 0, look, faults=lambda: faults)
    try:
        answer, body = ask(server, "/healthz")
        assert (answer.status, body) == (200, b"ok\n")
        faults = ["restarting again and again: splunk", "no progress for 180 s: feed"]
        answer, body = ask(server, "/healthz")
        assert (answer.status, body) == (
            500,
            b"restarting again and again: splunk; no progress for 180 s: feed\n",
        )
    finally:
        server.close()


HELD = StandingBy(events=1200, bytes=900_000, max_bytes=64_000_000, reaches_back_to=AT - 90.0)


def answers_of(snapshot: Snapshot) -> tuple[tuple[int, bytes], dict[str, Any]]:
    """/readyz and /status.json."""
    server = StatusServer("127.0.0.1", 0, lambda: snapshot)
    try:
        answer, body = ask(server, "/readyz")
        return (answer.status, body), msgspec.json.decode(ask(server, "/status.json")[1])
    finally:
        server.close()


def test_a_standby_says_so_and_is_ready_once_its_stream_is_live() -> None:
    ready, status = answers_of(run(standing_by=HELD))
    assert ready == (200, b"standing by\n")
    assert status["standby"] == {
        "events": 1200,
        "bytes": 900_000,
        "max_bytes": 64_000_000,
        "reaches_back_to": AT - 90.0,
        "why_not": "",
    }
    assert (status["level"], status["destinations"]) == ("good", [])
    assert "takes over when that one ends, without a gap of up to 90 s" in status["says"]
    connecting = replace(LIVE, phase=Phase.CONNECTING)
    ready, status = answers_of(run(standing_by=replace(HELD, reaches_back_to=None), connections=[connecting]))
    assert ready[0] == 503
    assert status["level"] == "watch"


def test_a_standby_that_could_not_take_over_is_not_ready_and_says_why() -> None:
    ready, status = answers_of(run(standing_by=replace(HELD, why_not="schema 3")))
    assert ready == (503, b"could not take over: schema 3\n")
    assert status["level"] == "trouble"
    assert "schema 3" in status["says"]


def test_the_process_that_delivers_is_no_standby() -> None:
    ready, status = answers_of(run(destination("files")))
    assert ready == (200, b"ready\n")
    assert status["standby"] is None
