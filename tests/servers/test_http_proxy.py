"""The fault proxy for HTTP: faithful until it is told otherwise, then wrong in exactly that way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from pipelines.practice.faults import Fault
from pipelines.practice.http_server import Answer, PracticeServer, Request
from tests.servers.http_proxy import HttpFaultProxy


class Echo(PracticeServer):
    """Answers with what it was sent."""

    def judge(self, request: Request) -> Answer:
        self.taken([request.headers.get("x-id", "")])
        if request.path == "/missing":
            return Answer(404, b"none")
        return Answer(200, request.body, (("X-More", "from the service"),))


@pytest.fixture
def service() -> Iterator[Echo]:
    with Echo() as running:
        yield running


@pytest.fixture
def proxy(service: Echo) -> Iterator[HttpFaultProxy]:
    with HttpFaultProxy(service.url) as running:
        yield running


def post(proxy: HttpFaultProxy, body: bytes = b"a body", timeout: float = 5.0) -> httpx.Response:
    return httpx.post(f"{proxy.url}/some/path", content=body, headers={"X-Id": "one"}, timeout=timeout)


def test_requests_and_answers_pass_unchanged(proxy: HttpFaultProxy, service: Echo) -> None:
    body = bytes(range(256)) * 1000
    answer = post(proxy, body)
    assert (answer.content, answer.headers["x-more"]) == (body, "from the service")
    (request,) = service.requests
    assert (request.method, request.path, request.body) == ("POST", "/some/path", body)
    assert request.headers["host"] == proxy.url.removeprefix("http://"), "signatures cover the host"
    assert request.headers["x-id"] == "one"
    assert httpx.get(f"{proxy.url}/missing").status_code == 404


def test_a_forced_status_keeps_the_request_from_the_service(proxy: HttpFaultProxy, service: Echo) -> None:
    proxy.answer(503, b"busy", {"Retry-After": "7"})
    answer = post(proxy)
    assert (answer.status_code, answer.content, answer.headers["retry-after"]) == (503, b"busy", "7")
    assert service.count == 0
    assert post(proxy).status_code == 200, "one fault is for one request"


def test_a_standing_fault_lasts_until_calm(proxy: HttpFaultProxy, service: Echo) -> None:
    proxy.standing = Fault(status=429)
    proxy.answer(500)
    assert [post(proxy).status_code for _ in range(3)] == [500, 429, 429]
    proxy.calm()
    assert post(proxy).status_code == 200
    assert service.count == 1


@pytest.mark.parametrize(
    ("command", "taken"),
    [
        (lambda proxy: proxy.reset("before"), 0),
        (lambda proxy: proxy.reset("during"), 0),
        (lambda proxy: proxy.reset("after"), 1),
        (lambda proxy: proxy.cut_answer(), 1),
    ],
)
def test_a_broken_connection(
    proxy: HttpFaultProxy, service: Echo, command: Callable[[HttpFaultProxy], None], taken: int
) -> None:
    command(proxy)
    with pytest.raises(httpx.TransportError):
        post(proxy)
    assert service.count == taken
    assert post(proxy).status_code == 200


def test_what_hangs_goes_on_when_it_is_calm_although_nobody_waits(
    proxy: HttpFaultProxy, service: Echo
) -> None:
    proxy.hang()
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, timeout=0.2)
    assert service.count == 0
    proxy.calm()
    assert service.wait_for(1)


def test_what_is_swallowed_never_arrives(proxy: HttpFaultProxy, service: Echo) -> None:
    proxy.swallow()
    with pytest.raises(httpx.ReadTimeout):
        post(proxy, timeout=0.2)
    proxy.calm()
    assert post(proxy).status_code == 200
    assert service.count == 1


def test_a_slow_answer_is_late_and_whole(proxy: HttpFaultProxy) -> None:
    proxy.slow(0.2)
    started = time.monotonic()
    assert post(proxy).content == b"a body"
    assert time.monotonic() - started >= 0.2


def test_down_refuses_and_up_serves_on_the_same_port(proxy: HttpFaultProxy) -> None:
    url = proxy.url
    proxy.down()
    with pytest.raises(httpx.ConnectError):
        post(proxy)
    proxy.up()
    assert proxy.url == url
    assert post(proxy).status_code == 200


def test_judge_first_answers_or_leaves_it_to_the_service(proxy: HttpFaultProxy, service: Echo) -> None:
    proxy.judge_first = lambda request: Answer(400, b"bad") if b"bad" in request.body else None
    assert post(proxy, b"a bad body").status_code == 400
    assert post(proxy).status_code == 200
    assert service.count == 1


def test_a_service_that_is_gone_is_a_broken_connection(proxy: HttpFaultProxy, service: Echo) -> None:
    service.down()
    with pytest.raises(httpx.TransportError):
        post(proxy)


def test_requests_side_by_side_do_not_wait_for_each_other(proxy: HttpFaultProxy) -> None:
    proxy.slow(0.3)
    started = time.monotonic()
    threads = [threading.Thread(target=post, args=(proxy,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 1.0
