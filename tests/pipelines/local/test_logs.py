"""Log lines: their two shapes, and that no secret passes by any of the ways into them."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import threading
import warnings
from typing import Any

import pytest

from pipelines.local import logs
from transforms.secret import LiteralSecret

SECRET = "gx_live_Zx81-not-for-anyone"
log = logging.getLogger("grantex.splunk")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _known() -> None:
    LiteralSecret(SECRET).read()


def configured(format: Any = "json", level: str = "INFO") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(format, level, stream)
    return stream


def objects(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines_carry_time_level_logger_message_and_extras() -> None:
    stream = configured()
    log.warning("%d events wait", 7, extra={"destination": "splunk", "attempts": 2, "codes": (503, 429)})
    [line] = objects(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "WARNING",
        "logger": "grantex.splunk",
        "message": "7 events wait",
        "destination": "splunk",
        "attempts": 2,
        "codes": [503, 429],
    }


def test_the_time_is_utc() -> None:
    record = logging.makeLogRecord({"created": 1_772_366_400.25})
    assert json.loads(logs.JsonFormatter().format(record))["time"] == "2026-03-01T12:00:00.250Z"


def test_an_exception_is_one_field_and_a_line_stays_one_line() -> None:
    stream = configured()
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("failed\nbadly")
    [line] = objects(stream)
    assert line["message"] == "failed\nbadly"
    assert line["exception"].startswith("Traceback (most recent call last)")
    assert line["exception"].endswith("ValueError: two\nlines")


def test_text_lines_are_short_and_named_after_the_destination() -> None:
    stream = configured("text")
    log.warning("the circuit is open", extra={"destination": "audit"})
    log.info("connected")
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d WARNING audit: the circuit is open", first)
    assert re.fullmatch(r"\d\d:\d\d:\d\d INFO splunk: connected", second)


def test_auto_is_text_on_a_terminal_and_json_elsewhere() -> None:
    terminal = Terminal()
    logs.configure("auto", "INFO", terminal)
    log.info("hello")
    assert terminal.getvalue().endswith("INFO splunk: hello\n")
    stream = configured("auto")
    log.info("hello")
    assert objects(stream)[0]["message"] == "hello"
    assert terminal.getvalue().count("hello") == 1  # configured again, not twice


@pytest.mark.parametrize("format", ["json", "text"])
def test_no_secret_passes(format: str) -> None:
    stream = configured(format)
    log.info("key " + SECRET)
    log.info("key %s", SECRET)
    log.info("key %(key)s", {"key": SECRET})
    log.info(
        "extras",
        extra={"header": f"Bearer {SECRET}", "nested": {SECRET: [{"a": (SECRET,)}, {"b": object()}]}},
    )
    log.info("as repr: %r", {"authorization": SECRET.encode()})
    log.info("stack", stack_info=True, extra={"error": ValueError(SECRET)})
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError(f"header {SECRET} refused") from error
    except RuntimeError:
        log.exception("refused")
    warnings.warn(f"careful with {SECRET}", stacklevel=1)
    printed = stream.getvalue()
    assert "Zx81" not in printed
    assert printed.count("[secret]") >= 7


def test_arguments_that_do_not_fit_are_dropped_rather_than_printed() -> None:
    record = logging.makeLogRecord({"msg": f"{SECRET}: too many %s", "args": ("arguments", SECRET)})
    assert logs.without_secrets(record)
    assert record.getMessage() == "[secret]: too many %s (its arguments do not fit it)"
    assert record.args == ()


def test_an_uncaught_exception_is_a_redacted_log_line() -> None:
    stream = configured()

    def fail() -> None:
        raise ValueError(f"bad header {SECRET}")

    thread = threading.Thread(target=fail, name="lane-splunk")
    thread.start()
    thread.join()
    error = ValueError(SECRET)
    sys.excepthook(ValueError, error, None)
    in_thread, in_main = objects(stream)
    assert in_thread["message"] == "thread lane-splunk ended by an unexpected error"
    assert "ValueError: bad header [secret]" in in_thread["exception"]
    assert in_main["exception"] == "ValueError: [secret]"


def test_libraries_that_log_requests_are_quiet_at_every_level() -> None:
    stream = configured(level="DEBUG")
    logging.getLogger("httpx").info("HTTP Request")
    logging.getLogger("apache_beam.runners.worker").info("bundle")
    log.debug("ours")
    assert [line["message"] for line in objects(stream)] == ["ours"]
    logging.getLogger("httpx").warning("odd")
    assert objects(stream)[-1]["message"] == "odd"
    stream = configured(level="ERROR")
    logging.getLogger("httpx").warning("odd")
    assert stream.getvalue() == ""


def test_a_library_that_keeps_its_errors_to_itself_is_heard() -> None:
    logging.getLogger("google").propagate = False  # as google.api_core does when it is imported first
    stream = configured()
    logging.getLogger("google.cloud.bigquery").error("the table is gone")
    assert objects(stream)[-1]["message"] == "the table is gone"


def test_libraries_that_warn_at_each_probe_of_what_we_say_are_silent() -> None:
    stream = configured(level="DEBUG")
    no_metadata_server = "Compute Engine Metadata server unavailable on attempt %s of %s."
    logging.getLogger("google.auth.compute_engine._metadata").warning(no_metadata_server, 1, 3)
    logging.getLogger("google.auth._default").warning("No project ID could be determined.")
    logging.getLogger("botocore.credentials").warning("Refreshing temporary credentials failed.")
    logging.getLogger("urllib3.connectionpool").warning("Retrying after connection broken.")
    assert stream.getvalue() == ""
    logging.getLogger("google.auth.transport").error("broken")
    assert objects(stream)[-1]["message"] == "broken"
