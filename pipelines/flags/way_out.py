"""Rules for the way out: proxies and certificates that cannot be used are found at the start, not later."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.flags.command_line import Arrived
from pipelines.flags.general import REMOTE
from pipelines.flags.parameter import Parameter
from transforms.proxies import ProxyError, first, parse_no_proxy, proxy_for
from transforms.way_out import certificates

if TYPE_CHECKING:
    from pipelines.flags.settings import Settings

# Stands for a service whose address is not a setting of ours: Google's, AWS's, Datadog's.
SOMEWHERE = "https://service.invalid"
KEY_LOG = "SSLKEYLOGFILE"  # Python writes the keys of every TLS connection there, or makes none
NO_PROXY = ("no_proxy", "NO_PROXY")
CERTIFICATE = "it must be PEM (-----BEGIN CERTIFICATE-----)"


def faults(
    settings: Settings, parameters: Mapping[str, Parameter], arrived: Arrived, environ: Mapping[str, str]
) -> Iterator[str]:
    """Whatever would end or block feed and destinations for ever."""
    if settings.ca_file is not None:
        yield from _authorities(arrived.source("ca_file"), settings.ca_file)
    yield from _client(settings, arrived)
    proxy = settings.http_proxy
    if proxy is not None and proxy.credentials is not None and not settings.in_process:
        yield (
            f"{arrived.source('http_proxy')}: its password works on one machine only, and {settings.runner} "
            "uses others; leave it out and set HTTPS_PROXY on the workers"
        )
    if settings.demo:
        return
    urls = _urls(settings, parameters)
    name, value = first(environ, ("SSL_CERT_FILE", "SSL_CERT_DIR"))
    if value and any(url.startswith("https:") for url in urls):
        yield from _authorities(name, Path(value))
    if (key_log := environ.get(KEY_LOG)) and any(url.startswith("https:") for url in urls):
        yield from _key_log(key_log)
    found = [_proxy_fault(url, settings, environ) for url in urls]
    yield from dict.fromkeys(fault for fault in found if fault)


def warnings(settings: Settings, arrived: Arrived, environ: Mapping[str, str]) -> Iterator[str]:
    """What is passed over, or seen by others."""
    if (
        arrived.source("http_proxy").startswith("--")
        and settings.http_proxy
        and settings.http_proxy.credentials
    ):
        yield (
            "--http_proxy: a password on a command line can be seen by everyone on this machine; give "
            "GRANTEX_HTTP_PROXY instead"
        )
    name, value = first(environ, NO_PROXY)
    ignored = [entry for entry in parse_no_proxy(value).ignored if "@" not in entry]
    if ignored and settings.http_proxy is None:
        yield (
            f"{name}: matches nothing with {', '.join(ignored)[:200]}; write a name as .example.com, a "
            "network as 10.0.0.0/8, without a port"
        )


def _proxy_fault(url: str, settings: Settings, environ: Mapping[str, str]) -> str:
    try:
        proxy_for(url, environ, settings.http_proxy)
    except ProxyError as error:
        return str(error).replace(" ", ": ", 1)
    return ""


def _authorities(source: str, path: Path) -> Iterator[str]:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=certificates(path))
    except ssl.SSLError:
        yield f"{source}: the file holds no certificate; {CERTIFICATE}"
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable path"
        yield f"{source}: the file cannot be read ({why}); it must be a PEM file with a certificate"


def _key_log(path: str) -> Iterator[str]:
    try:
        open(path, "ab").close()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable path"
        yield f"{KEY_LOG}: the file cannot be written ({why}); unset it, unless you look into TLS on purpose"


def _client(settings: Settings, arrived: Arrived) -> Iterator[str]:
    certificate, key = settings.client_certificate, settings.client_key
    if certificate is None:
        if key is not None:
            yield f"{arrived.source('client_key')}: needs --client_certificate, whose key it is"
        return
    try:
        for path in filter(None, (certificate, key)):
            path.read_bytes()
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or "not a usable path"
        source = arrived.source("client_certificate" if path is certificate else "client_key")
        yield f"{source}: the file cannot be read ({why}); it must be a PEM file"
        return
    try:
        # OpenSSL would ask for a passphrase on the terminal.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError:
        source = arrived.source("client_certificate")
        yield (
            f"{source}: does not hold a certificate that fits the key (in it, or in --client_key), without a "
            f"passphrase; {CERTIFICATE}"
        )


def _urls(settings: Settings, parameters: Mapping[str, Parameter]) -> list[str]:
    """Where a run goes out to: each URL that is given, and SOMEWHERE for each service without one."""
    urls = [] if settings.pubsub_subscription else [settings.feed_url]
    if settings.pubsub_subscription or settings.dead_letters.startswith(REMOTE):
        urls.append(SOMEWHERE)
    for first_flag in dict.fromkeys(each.group.first for each in parameters.values()):
        if first_flag and first_flag in settings.given:
            urls += _of_group(settings, parameters, first_flag)
    return urls


def _of_group(settings: Settings, parameters: Mapping[str, Parameter], first_flag: str) -> Iterable[str]:
    names = [
        name
        for name, each in parameters.items()
        if each.group.first == first_flag and each.placeholder == "URL"
    ]
    given = [settings[name] for name in names if settings[name]]
    return given or ([SOMEWHERE] if names else [])
