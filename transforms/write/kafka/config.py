"""What librdkafka is told: our defaults, what the promises rest on, and the settings that a user adds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer

from transforms import readers
from transforms.secret import LiteralSecret, Secret, SecretError, parse_secret, read_by, redact
from transforms.way_out import USUAL, WayOut
from transforms.write.kafka import tokens as kafka_tokens
from transforms.write.kafka.tokens import Tokens

Value = str | Secret
Pair = tuple[str, Value]
FILE = "file:"
SERVERS = "[^ ,/@]+:[0-9]+(, *[^ ,/@]+:[0-9]+)*"

# What may be replaced. Names and meaning: librdkafka's CONFIGURATION.md.
DEFAULTS: Mapping[str, str] = {
    "client.id": "grantex-destinations",
    "compression.type": "zstd",
    # librdkafka's own default differs from Java's: with this one other clients find the same partition.
    "partitioner": "murmur2_random",
    # A topic that is missing is said to be so within one attempt (30 s by default).
    "topic.metadata.propagation.max.ms": "2000",
    # Brokers that are back are found within two seconds (10 s by default).
    "reconnect.backoff.max.ms": "2000",
    # An attempt waits for its last report, so messages need not wait long for others.
    "linger.ms": "5",
    # Messages of a few batches: the outbox holds the same events, so more would only be a second copy.
    "queue.buffering.max.kbytes": "65536",
    # Critical only. What else it says about connections comes back in the outcome, and nobody reads its
    # queue of log lines while no events come.
    "log_level": "2",
    "log.connection.close": "false",
}

# What may not be replaced, and why.
FIXED: Mapping[str, tuple[str, str]] = {
    "enable.idempotence": ("true", "without it a retry inside librdkafka repeats events"),
    "message.timeout.ms": ("0", "events are kept until they are delivered, they never expire"),
    "statistics.interval.ms": ("0", "nobody would read the statistics"),
    "delivery.report.only.error": ("false", "a delivery report is the only acknowledgement"),
}
# librdkafka's other names of the same settings.
ALIASES = {"delivery.timeout.ms": "message.timeout.ms"}
FOR_PROGRAMS = "is for programs: its value would have to be a function or an object"
REFUSED: Mapping[str, str] = {
    "bootstrap.servers": "has a flag of its own: --kafka_bootstrap_servers",
    "metadata.broker.list": "has a flag of its own: --kafka_bootstrap_servers",
    "transactional.id": "is not supported: events are idempotent by themselves",
    "enable.gapless.guarantee": "is not supported: one event that is refused would stop all others for ever",
    "test.mock.num.brokers": "is not supported: events would go to brokers that forget them",
    **dict.fromkeys(("error_cb", "stats_cb", "throttle_cb", "oauth_cb", "on_delivery"), FOR_PROGRAMS),
    **dict.fromkeys(("logger", "default.topic.config"), FOR_PROGRAMS),
}

# What librdkafka marks as sensitive, but for a user's name, the path of a key and an authority's certificate.
SENSITIVE = re.compile(r"(^|\.)(password|passphrase|secret|key\.pem)$|^sasl\.oauthbearer\.config$")
REFERENCE = re.compile(r"(env|file|secret|aws-secret):")
QUOTED_VALUE = re.compile(r'\bvalue (".*?"|\S+)', re.DOTALL)


def shown(key: str) -> str:
    """A key as a message may repeat it: a secret may stand where a key should."""
    return key if re.fullmatch(r"[a-z][a-z._]{0,60}", key) else "what stands before the ="


def value_of(key: str, text: str) -> Value:
    """`text` as a reference to a secret where it is one, or where `key` holds a password; else itself.

    Raises ValueError without the text.
    """
    if not REFERENCE.match(text) and not SENSITIVE.search(key):
        return text
    try:
        return parse_secret(text)
    except SecretError as error:
        raise ValueError(f"{shown(key)}: {error}") from None


def fault(key: str, value: Value) -> str:
    """What is wrong with one setting, without its value; "" when nothing is."""
    real = ALIASES.get(key, key)
    if real in REFUSED:
        return f"{key} {REFUSED[real]}"
    if real in FIXED:
        right, why = FIXED[real]
        return "" if value == right else f"{key} must stay {right}: {why}"
    try:
        Producer({"log_level": 0, key: value if isinstance(value, str) else "x"})
    except KafkaException as error:
        reason = in_words(error)
        if "No such configuration" in reason:
            return f"{shown(key)} is no setting of librdkafka"
        # Alone it may lack others; whether they fit together is seen when the first batch is written.
        if isinstance(value, str) and "Failed to create" not in reason:
            return f"{key}: {reason}"
    return ""


def in_words(error: KafkaException) -> str:
    """librdkafka's complaint about a configuration, without any value in it."""
    text = error.args[0].str() if error.args and hasattr(error.args[0], "str") else str(error)
    return redact(QUOTED_VALUE.sub("value", text.strip()))


def protected(config: Mapping[str, Value]) -> dict[str, Value]:
    """`config` with passwords that were given as plain text wrapped, so that no repr or pickle has them."""
    return {
        key: LiteralSecret(value) if isinstance(value, str) and SENSITIVE.search(key) else value
        for key, value in config.items()
    }


def resolved(
    servers: str, config: Mapping[str, Value], way_out: WayOut = USUAL, tokens: Tokens | None = None
) -> dict[str, Any]:
    """The whole configuration with the values of its secrets as they are now. Raises SecretError (TokenError
    when no token can be had), and OSError when an authority cannot be read."""
    given = {
        key: value if isinstance(value, str) else read_by(way_out, value)
        for key, value in config.items()
        if ALIASES.get(key, key) not in FIXED  # repeated at most, as `fault` has seen to
    }
    signing_in: dict[str, Any] = {}
    if tokens is not None:
        # librdkafka's client would wait 10 s for the first, and could not say why there is none.
        tokens.sign()
        given = {kafka_tokens.ALIASES.get(key, key): value for key, value in given.items()}
        given |= kafka_tokens.SETTINGS
        signing_in["oauth_cb"] = tokens
    fixed = {key: value for key, (value, _) in FIXED.items()}
    # The binding takes it as a boolean only, and this is its default.
    del fixed["delivery.report.only.error"]
    trusted = authorities(given, way_out)
    return {**DEFAULTS, **trusted, **given, **signing_in, **fixed, "bootstrap.servers": servers}


def authorities(given: Mapping[str, str], way_out: WayOut) -> dict[str, str]:
    """Whom to trust: the usual authorities and those of `way_out`, unless librdkafka was told by its own
    settings, or there is no TLS."""
    tls = "ssl" in given.get("security.protocol", "").lower()
    if not tls or any(key.startswith("ssl.ca.") for key in given):
        return {}
    roots = way_out.roots()
    return {} if roots is None else {"ssl.ca.pem": roots.decode("ascii")}


# What a person writes


def pairs(text: str) -> tuple[Pair, ...]:
    """The settings that `text` gives: "KEY=VALUE", or "file:PATH" of a file with one on each line.

    Raises ValueError with what would be right, never with a value.
    """
    # `ssl.key.password=file:PATH` is a setting; only `file:PATH` by itself is a file of settings.
    if not text.startswith(FILE):
        return (_pair(text, ""),)
    return _of_file(Path(text.removeprefix(FILE)).expanduser())


def servers(text: str) -> str:
    """HOST:PORT,HOST:PORT."""
    for each in readers.names(text):
        host, colon, port = each.rpartition(":")
        if not (colon and port.isascii() and port.isdigit() and 0 < int(port) < 65_536 and host):
            raise ValueError("must be HOST:PORT, or several with commas between them")
        if "/" in host or "@" in host:
            raise ValueError(
                "must be HOST:PORT without a scheme or user; TLS and SASL go into --kafka_config"
            )
    return ",".join(readers.names(text))


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
        found = value_of(key, value)
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
    if wrong := fault(key, found):
        raise ValueError(f"{where}{wrong}")
    return key, found
