"""A connection to Splunk's HTTP Event Collector, with its token."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from transforms.write.over_http.connection import HttpConnection
from transforms.write.over_http.credential import Credential
from transforms.write.splunk.reply import is_refused_token

if TYPE_CHECKING:
    from transforms.write.splunk.destination import Splunk

EVENT_PATH = "/services/collector/event"
# What people paste instead of the root.
PASTED_PATH = re.compile(r"/services/collector(/event(/1\.0)?)?/*$|/+$")


def connect(settings: Splunk) -> tuple[HttpConnection, Credential]:
    """Connects when something is posted. Raises OSError when `ca_file` cannot be read."""
    headers = {"Content-Type": "application/json"}
    if settings.compression == "gzip":
        headers["Content-Encoding"] = "gzip"
    connection = HttpConnection(_root(settings) + EVENT_PATH, headers, settings.ca_file)
    credential = Credential(
        connection, settings.token, "the HEC token", "Authorization", "Splunk ", is_refused_token
    )
    return connection, credential


def where(settings: Splunk) -> str:
    """The service as a person knows it."""
    parts = urlsplit(_root(settings))
    port = f":{parts.port}" if parts.port else ""
    return f"Splunk at {parts.scheme}://{parts.hostname}{port}"


def _root(settings: Splunk) -> str:
    return PASTED_PATH.sub("", settings.url)
