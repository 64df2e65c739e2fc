"""Log lines for people (text) or machines (JSON), without secrets whatever is logged and by whom."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TextIO

from transforms.secret import redact

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

# Libraries that log each request, or headers with the key in them, below this level.
QUIET = ("apache_beam", "boto3", "botocore", "google", "httpcore", "httpx", "urllib3")
QUIET_LEVEL = logging.WARNING
# Those that warn at each attempt of what our own log says once, with what to do.
REPEATING = ("botocore.credentials", "google.auth", "urllib3.connectionpool")
REPEATING_LEVEL = logging.ERROR

_ORDINARY = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_MAX_DEPTH = 4  # of what is nested in an extra; deeper is told as text

_log = logging.getLogger(__name__)


def begin(settings: Settings, log: logging.Logger) -> None:
    """What a program does first with its settings: logging as they say, their warnings, by its own `log`, and
    the way out for clients that look for it in this process's environment. Raises SecretError."""
    configure(settings.log_format, settings.log_level)
    for line in settings.warnings:
        log.warning(line)
    settings.way_out.lend(os.environ)


def configure(
    format: Literal["auto", "text", "json"] = "auto", level: str = "INFO", stream: TextIO | None = None
) -> None:
    """Make this process's logging go to `stream` (standard error), redacted; may be called again.

    format: "auto" is text when the stream is a terminal and json otherwise.
    Uncaught exceptions and Python's warnings become log lines too: their text may hold a secret.
    """
    stream = sys.stderr if stream is None else stream
    text = format == "text" or (format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.addFilter(without_secrets)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    root = logging.getLogger()
    for old in list(root.handlers):
        if type(old) is logging.StreamHandler:  # ours, or a library's basicConfig
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    for name in QUIET:
        logger = logging.getLogger(name)
        logger.setLevel(max(QUIET_LEVEL, root.level))
        logger.propagate = True  # google.api_core ends it where it is imported before this, errors and all
    for name in REPEATING:
        logging.getLogger(name).setLevel(max(REPEATING_LEVEL, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def without_secrets(record: logging.LogRecord) -> bool:
    """A filter that takes every secret value read so far out of a record, its exception and extras."""
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  (whatever a bad format raises, logging would print the arguments)
        message = f"{record.msg} (its arguments do not fit it)"
    record.msg, record.args = redact(message), ()
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    record.exc_info = None
    if record.exc_text:
        record.exc_text = redact(record.exc_text)
    if record.stack_info:
        record.stack_info = redact(record.stack_info)
    for name in vars(record).keys() - _ORDINARY:
        setattr(record, name, _plain(getattr(record, name), _MAX_DEPTH))
    return True


def _plain(value: Any, depth: int) -> Any:
    """`value` as JSON can tell it, without secrets."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if depth and isinstance(value, Mapping):
        return {redact(str(key)): _plain(each, depth - 1) for key, each in value.items()}
    if depth and isinstance(value, list | tuple | set | frozenset):
        return [_plain(each, depth - 1) for each in value]
    return redact(str(value))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, extras, exception."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in vars(record).items() if name not in _ORDINARY | line.keys()}
        exception = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        if exception:
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = record.stack_info
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`12:00:01 WARNING splunk: message`, in local time; named after the destination when there is one."""

    def format(self, record: logging.LogRecord) -> str:
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        who = getattr(record, "destination", "") or record.name.rpartition(".")[2]
        lines = [f"{at} {record.levelname} {who}: {record.getMessage()}"]
        exception = record.exc_text or (self.formatException(record.exc_info) if record.exc_info else "")
        return "\n".join([*lines, *filter(None, (exception, record.stack_info))])


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        _log.critical("ended by an unexpected error", exc_info=(kind, error, trace))


def _uncaught_in_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not issubclass(args.exc_type, SystemExit):
        name = args.thread.name if args.thread else "unknown"
        info = (args.exc_type, args.exc_value, args.exc_traceback)
        _log.critical("thread %s ended by an unexpected error", name, exc_info=info)
