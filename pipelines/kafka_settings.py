"""--kafka_config: librdkafka's settings as key=value, or a file of them, passwords as references."""

from __future__ import annotations

from pathlib import Path

from pipelines.flags import parameter
from transforms.write.kafka import config as kafka_config
from transforms.write.kafka.config import Value

Pair = tuple[str, Value]
FILE = "file:"


def pairs(text: str) -> tuple[Pair, ...]:
    """The settings that `text` gives: "KEY=VALUE", or "file:PATH" of a file with one on each line.

    Raises ValueError with what would be right, never with a value.
    """
    # `ssl.key.password=file:PATH` is a setting; only `file:PATH` by itself is a file of settings.
    if not text.startswith(FILE):
        return (_pair(text, ""),)
    return _of_file(Path(text.removeprefix(FILE)).expanduser())


def together(given: tuple[Pair, ...]) -> dict[str, Value]:
    """All settings as one mapping. A key given later replaces an earlier one, so flags after a file win."""
    return dict(given)


def servers(text: str) -> str:
    """HOST:PORT,HOST:PORT."""
    for each in parameter.read_names(text):
        host, colon, port = each.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536 and host):
            raise ValueError("must be HOST:PORT, or several with commas between them")
        if "/" in host or "@" in host:
            raise ValueError(
                "must be HOST:PORT without a scheme or user; TLS and SASL go into --kafka_config"
            )
    return ",".join(parameter.read_names(text))


def topic(text: str) -> str:
    """A topic's name as Kafka allows it."""
    if len(text) > 249 or text in (".", "..") or not set(text) <= TOPIC_CHARACTERS:
        raise ValueError("must be at most 249 letters, digits, ., _ and -, as Kafka's topic names are")
    return text


TOPIC_CHARACTERS = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def _of_file(path: Path) -> tuple[Pair, ...]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not text"
        raise ValueError(f"the file of settings cannot be read ({why})") from None
    return tuple(
        _pair(line.strip(), f"line {number}: ")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    )


def _pair(text: str, where: str) -> Pair:
    key, equals, value = text.partition("=")
    key, value = key.strip(), value.strip()
    if not equals or not key or not value or " " in key:
        raise ValueError(f"{where}must be KEY=VALUE with one of librdkafka's settings, or file:PATH")
    if not value.isprintable() or not key.isprintable():
        raise ValueError(f"{where}must be one line of printable characters")
    try:
        found = kafka_config.value_of(key, value)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    fault = kafka_config.fault(key, found)
    if fault:
        raise ValueError(f"{where}{fault}")
    return key, found
