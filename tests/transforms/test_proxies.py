"""Proxies by environment, as curl 7.88 was seen to read them, and by setting."""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys

import pytest

from transforms.proxies import Proxy, ProxyError, is_local, parse_no_proxy, parse_proxy, proxy_for
from transforms.secret import SecretError, redact

PROXY = "http://proxy.test:3128"


# Which proxy


@pytest.mark.parametrize(
    ("url", "environ", "expected"),
    [
        ("https://a.test/", {"HTTPS_PROXY": PROXY}, "proxy.test:3128"),
        ("https://a.test/", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other.test:1"}, "proxy.test:3128"),
        ("https://a.test/", {"HTTP_PROXY": PROXY}, None),
        ("http://a.test/", {"HTTPS_PROXY": PROXY}, None),
        ("http://a.test/", {"HTTP_PROXY": PROXY}, "proxy.test:3128"),
        ("http://a.test/", {"HTTP_PROXY": PROXY, "REQUEST_METHOD": "GET"}, None),
        ("http://a.test/", {"ALL_PROXY": PROXY}, "proxy.test:3128"),
        ("https://a.test/", {"all_proxy": PROXY}, "proxy.test:3128"),
        ("https://a.test/", {"HTTPS_PROXY": "", "ALL_PROXY": PROXY}, "proxy.test:3128"),
        ("https://a.test/", {"HTTPS_PROXY": PROXY, "ALL_PROXY": "socks5://s.test"}, "proxy.test:3128"),
        ("https://a.test/", {"HTTPS_PROXY": "proxy.test"}, "proxy.test:1080"),
        ("https://a.test/", {"HTTPS_PROXY": "proxy.test:80/"}, "proxy.test:80"),
        ("https://a.test/", {"HTTPS_PROXY": "HTTP://[fd00::1]:8080/"}, "[fd00::1]:8080"),
        ("https://a.test/", {}, None),
    ],
)
def test_the_variable_that_counts(url: str, environ: dict[str, str], expected: str | None) -> None:
    found = proxy_for(url, environ)
    assert (found and str(found)) == expected


@pytest.mark.parametrize(
    ("no_proxy", "through", "direct"),
    [
        ("example.com", ["notexample.com", "example.org"], ["example.com", "EXAMPLE.com", "a.b.example.com"]),
        (".example.com", ["notexample.com"], ["example.com", "a.example.com", "example.com."]),
        ("a.test,\tb.test  c.test", ["d.test"], ["a.test", "b.test", "c.test"]),
        ("*", [], ["example.com", "10.0.0.1", "[fd00::1]"]),
        ("10.0.0.0/16", ["10.1.0.1", "10.0.0.1.test"], ["10.0.0.1", "10.0.255.255"]),
        ("10.0.0.9/16", ["10.1.0.1"], ["10.0.3.1"]),
        ("10.0.0.1", ["10.0.0.2"], ["10.0.0.1"]),
        ("localhost,127.0.0.1,10.0.0.0/16,fd01::/48", ["[fd02::1]"], ["[fd01::7]"]),  # f02a
        ("localhost,[::1],[fd01::7]", ["[fd01::8]"], ["[fd01::7]", "[fd01:0:0::7]"]),  # f02b
        ("[fd01::]/48", ["[fd02::1]"], ["[fd01::7]"]),
        ('"a.test"', ["a.test"], []),
        (
            "*.a.test,10.0.0.0/99,fd01::/999,a.test:8080,,",
            ["b.a.test", "10.0.0.1", "[fd01::1]", "a.test"],
            [],
        ),
    ],
)
def test_no_proxy(no_proxy: str, through: list[str], direct: list[str]) -> None:
    environ = {"ALL_PROXY": PROXY, "NO_PROXY": no_proxy}
    assert [host for host in through if proxy_for(f"https://{host}:8443/x", environ) is None] == []
    assert [host for host in direct if proxy_for(f"https://{host}:8443/x", environ) is not None] == []


def test_the_lower_case_no_proxy_wins() -> None:
    environ = {"ALL_PROXY": PROXY, "NO_PROXY": "a.test", "no_proxy": "b.test"}
    assert proxy_for("https://a.test/", environ) is not None
    assert proxy_for("https://b.test/", environ) is None


def test_what_matches_nothing_is_named() -> None:
    assert parse_no_proxy("a.test,*.b.test fd01::/999 'c.test'").ignored == (
        "*.b.test",
        "fd01::/999",
        "'c.test'",
    )


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.0.0.2", "127.1", "[::1]", "0.0.0.0",
        "[::ffff:127.0.0.1]", "169.254.169.254", "metadata.google.internal",
    ],
)  # fmt: skip
def test_this_machine_is_never_behind_a_proxy(host: str) -> None:
    assert proxy_for(f"http://{host}:8080/", {"ALL_PROXY": PROXY}) is None
    assert proxy_for(f"https://{host}/", {"ALL_PROXY": PROXY}, parse_proxy(PROXY)) is None


@pytest.mark.parametrize(
    "host", ["localhost.test", "notlocalhost", "128.0.0.1", "10.0.0.1", "::2", "1e9.net"]
)
def test_others_may_be(host: str) -> None:
    assert not is_local(host)


def test_a_proxy_that_is_given_goes_before_the_environment() -> None:
    environ = {"HTTPS_PROXY": "socks5://s.test", "NO_PROXY": "*"}
    given = parse_proxy(PROXY)
    assert proxy_for("https://a.test/", environ, given) is given
    assert proxy_for("http://a.test/", environ, given) is given


# What is none


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://127.0.0.1:1080", "SOCKS"),
        ("SOCKS5h://user:s3cret-word@127.0.0.1:1080", "SOCKS"),
        ("https://proxy.test:3128", "TLS on the way to the proxy"),
        ("ftp://proxy.test:3128", "must begin with http://"),
        ('"http://user:s3cret-word@proxy.test:3128"', "must begin with http://"),
        ('http://user:s3cret-word@proxy.test:3128"', "no address of a proxy"),
        ("http://user:s3cret-word@proxy.test:0", "no address of a proxy"),
        ("http://proxy.test:65536", "no address of a proxy"),
        ("http://proxy.test:port", "no address of a proxy"),
        ("http://[::g]:80", "no address of a proxy"),
        ("http://[1:2]:80", "no address of a proxy"),
        ("http://", "no address of a proxy"),
        ("http://proxy test:80", "no address of a proxy"),
        ("http://u:s3cret-word%0d%0a@proxy.test:80", "printable ASCII"),
        ("http://u:s3cret-word%C3%B6@proxy.test:80", "printable ASCII"),
    ],
)
def test_a_value_that_is_none_is_said_and_not_shown(value: str, words: str) -> None:
    with pytest.raises(ProxyError, match=f"^HTTPS_PROXY .*{words}") as error:
        proxy_for("https://a.test/", {"HTTPS_PROXY": value})
    assert "s3cret-word" not in str(error.value)


# Credentials


def test_credentials_are_used_and_never_shown() -> None:
    proxy = parse_proxy("http://us%40er:pass%20w%3Ard@proxy.test:3128")
    assert proxy.login() == ("us@er", "pass w:rd")
    assert proxy.headers() == {"Proxy-Authorization": "Basic dXNAZXI6cGFzcyB3OnJk"}
    assert proxy.url_with_login() == "http://us%40er:pass%20w%3Ard@proxy.test:3128"
    for shown in (str(proxy), repr(proxy), proxy.url, pickle.dumps(proxy).decode("latin-1")):
        assert "pass" not in shown.replace("password", "")
        assert "dXNAZXI6" not in shown
    assert redact("CONNECT with pass w:rd, dXNAZXI6cGFzcyB3OnJk") == "CONNECT with [secret], [secret]"
    assert pickle.loads(pickle.dumps(proxy)) == proxy
    assert parse_proxy("http://proxy.test:3128").headers() == {}


@pytest.mark.slow
def test_a_password_does_not_reach_another_process() -> None:
    pickled = pickle.dumps(parse_proxy("http://user:s3cret-word@proxy.test:3128"))
    code = f"import pickle; pickle.loads({pickled!r})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert SecretError.__name__ in ended.stderr


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        assert proxy_for("https://a.test/", {"HTTPS_PROXY": "http://u:s3cret-word@p.test"}) == Proxy(
            "p.test", 1080, parse_proxy("http://u:s3cret-word@p.test").credentials
        )
    assert caplog.text == ""
