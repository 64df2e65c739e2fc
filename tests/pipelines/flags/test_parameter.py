"""Values and single parameters: what each kind accepts, refuses and shows."""

# ruff: noqa: E501 (messages in full)

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

import pytest

from pipelines.flags.parameter import Group, Parameter, declared
from transforms.secret import Secret
from transforms.setting import setting


@dataclass(frozen=True, kw_only=True)
class Things:
    group: ClassVar[Group] = Group("Things")

    size: int = setting("Size.", 16 * 1024**2, unit="bytes")
    wait: float = setting("Wait.", 2.0, unit="seconds")
    count: int = setting("Count.", 1, at_least=1, at_most=5)
    least: int = setting("Least.", 1, at_least=1)
    on: bool = setting("On.", False)
    kind: str = setting("Kind.", "INFO", choices=("INFO", "ERROR"))
    word: Literal["one", "two"] = setting("Word.", "one")
    root: str = setting("Root.", "", url="/v1/events", example="https://example.com")
    key: Secret | None = setting("Key.", None, example="env:KEY")
    place: Path = setting("Place.", Path("out"), default_text="./out")
    several: tuple[str, ...] = setting("Several.", (), repeatable=True)
    code: str | None = setting("Code.", None, pattern="[a-z]+", right="lower-case letters")


THINGS = {each.name: each for each in declared(Things)}


def fault(name: str, text: str) -> str:
    value, line = THINGS[name].attempt(f"--{name}", text)
    assert value is None
    return line


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("size", "1000000", 1_000_000),
        ("size", "10GiB", 10 * 1024**3),
        ("size", "5 MB", 5_000_000),
        ("wait", "0.2", 0.2),
        ("wait", ".5", 0.5),
        ("wait", "1e-3", 0.001),
        ("wait", "300", 300.0),
        ("count", "5", 5),
        ("on", "true", True),
        ("on", "False", False),
        ("kind", "error", "ERROR"),
        ("word", "Two", "two"),
        ("code", "abc", "abc"),
        ("root", "https://api.grantex.dev/", "https://api.grantex.dev"),
        ("root", "http://[::1]:8088/grantex//", "http://[::1]:8088/grantex"),
        ("root", "http://splunk_hec:8088", "http://splunk_hec:8088"),
        ("place", "/tmp/x", Path("/tmp/x")),
        ("place", "~/x", Path.home() / "x"),
        ("several", " a, b,a ", ("a", "b")),
    ],
)
def test_a_kind_reads_its_text(name: str, text: str, value: object) -> None:
    assert THINGS[name].attempt("--x", text) == (value, "")


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("wait", "-1", "--wait=-1: must be more than 0 seconds; the default is 2"),
        ("wait", "0", "--wait=0: must be more than 0 seconds; the default is 2"),
        ("wait", "nan", "--wait=nan: must be a number of seconds without a unit; the default is 2"),
        ("wait", "inf", "--wait=inf: must be a number of seconds without a unit; the default is 2"),
        ("wait", "1e999", "--wait=1e999: must be a number of seconds without a unit; the default is 2"),
        ("wait", "5m", "--wait=5m: must be a number of seconds without a unit; the default is 2"),
        ("wait", "1e9", "--wait=1e9: must be at most 31536000 seconds; the default is 2"),
        ("count", "6", "--count=6: must be from 1 to 5; the default is 1"),
        ("count", "1.5", "--count=1.5: must be a whole number; the default is 1"),
        ("count", "\u0663", "--count: must be a whole number; the default is 1"),
        ("least", "0", "--least=0: must be at least 1; the default is 1"),
        ("size", "-5", "--size=-5: must be at least 1 bytes; the default is 16 MiB"),
        ("size", "5TB", "--size=5TB: must be a number of bytes, such as 1000000, 16MiB or 10GiB; the default is 16 MiB"),
        ("on", "yes", "--on: must be true or false; the default is false"),
        ("kind", "LOUD", "--kind: must be one of INFO, ERROR; the default is INFO"),
        ("word", "three", "--word: must be one of one, two; the default is one"),
        ("code", "a1", "--code: must be lower-case letters"),
        ("several", "a,,b", "--several: has an empty name between its commas"),
        ("several", "a b", "--several: must not contain blanks or characters that cannot be printed"),
        ("place", "gs://bucket", "--place: must be a directory or file on this machine; the default is ./out"),
        ("key", "env:", "--key: is not of the form env:NAME (the name of an environment variable, without a $); for example --key=env:KEY"),
        ("key", "", "--key: needs a value; for example --key=env:KEY"),
        ("count", " ", "--count: needs a value; the default is 1"),
    ],
)  # fmt: skip
def test_a_fault_says_what_is_wrong_and_what_would_be_right(name: str, text: str, line: str) -> None:
    assert fault(name, text) == line


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("api.grantex.dev", "must be a URL that begins with"),
        ("localhost:8080", "must be a URL that begins with"),
        ("ftp://example.com", "must be a URL that begins with"),
        ("https:/example.com", "must be a URL that begins with"),
        ("https://", "must be a URL that begins with"),
        ("https://:8088", "must have a host name"),
        ("https://[::1", "must have a host name"),
        ("https://a..b", "must have a host name"),
        ("https://a%20b", "must have a host name"),
        ("https://example.com:0", "must have a port from 1 to 65535"),
        ("https://example.com:99999", "must have a port from 1 to 65535"),
        ("https://example.com:x", "must have a port from 1 to 65535"),
        ("https://example.com:", "must have a port from 1 to 65535"),
        ("https://example.com/\nx", "must not contain blanks"),
        ("https://example.com/?", "without ? and #"),
        ("https://example.com/v1/events/stream", "must be the root of the service; /v1/events is added"),
    ],
)
def test_a_malformed_url_is_refused(text: str, why: str) -> None:
    assert why in fault("root", text)
    assert fault("root", text).endswith("; for example --root=https://example.com")


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter22@example.com",
        "https://hunter22@example.com",
        "https://x/?key=hunter22",
        "hunter22",
    ],
)
def test_a_url_that_may_hold_a_secret_is_not_repeated(text: str) -> None:
    assert "hunter22" not in fault("root", text)


@pytest.mark.parametrize("name", ["size", "wait", "count", "on", "kind", "root", "several"])
@pytest.mark.parametrize("text", ["gx_live_abc,,", "B5A79AAD-D822-46CC-80D1-819F80D7BFB0 ,", "tok en,,"])
def test_a_secret_on_the_wrong_flag_is_not_repeated(name: str, text: str) -> None:
    assert text.rstrip(" ,") not in fault(name, text)


def test_every_setting_of_a_room_is_a_parameter_by_its_name() -> None:
    assert list(THINGS) == [each.name for each in fields(Things)]
    wait = THINGS["wait"]
    assert isinstance(wait, Parameter)
    assert (wait.flag, wait.variable, wait.default) == ("--wait", "GRANTEX_WAIT", 2)
    assert wait.group is Things.group
    assert Things().wait == 2
