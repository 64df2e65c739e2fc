"""Everything that can keep the feed from being read, and what a person does about it: one table for messages,
page and docs/runbook.md. The destinations' is transforms/write/advice.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """One reason why a stream ended or cannot be opened.

    seen: how it shows. says: the message; it may have {names} in it. do: what a person does about it; "" when
    it passes by itself, as all are tried again without end.
    """

    seen: str
    says: str
    do: str = ""


IN_BETWEEN = (
    "something in between answered {status} in the service's place ({who}): let this program through the "
    "proxy, firewall or sign-in, or correct --feed_url"
)

# The keys are the values of EndingKind, statuses, and names.
FEED: Mapping[str, Trouble] = {
    "end": Trouble("the stream ends as it should", "the service closed the stream"),
    "cut": Trouble("the bytes end in the middle", "the stream was cut off"),
    "reset": Trouble("ECONNRESET, EPIPE", "the connection was reset"),
    "refused": Trouble(
        "ECONNREFUSED",
        "the service refused the connection: nothing listens at --feed_url",
        "correct --feed_url, or start what should listen there",
    ),
    "unresolved": Trouble(
        "no address",
        "the host of --feed_url has no address: check the name and DNS",
        "correct --feed_url, or see to this machine's DNS",
    ),
    "unreachable": Trouble(
        "no connection",
        "the service cannot be reached",
        "if it lasts: see to the network, the firewall, and --http_proxy",
    ),
    "tls": Trouble(
        "its certificate is not trusted, or is no certificate",
        "the TLS handshake failed: check --feed_url, and --ca_file for a private authority",
        "give the authority of the proxy that looks into TLS with --ca_file, or correct --feed_url",
    ),
    "connect timeout": Trouble(
        "no connection in time",
        "the service did not accept the connection in time",
        "if it lasts: a firewall drops the packets; open the way to --feed_url",
    ),
    "silence": Trouble(
        "40 s without a byte, as keepalives come every 30 s",
        "the feed fell silent: neither an event nor a keepalive came",
        "if it comes again and again: something on the way holds answers back (buffering) or forgets idle "
        "connections; let it pass text/event-stream through, with an idle time-out above 60 s",
    ),
    "content": Trouble(
        "200 with something else",
        "what answered is not the event stream: check --feed_url",
        "correct --feed_url, or let this program through the sign-in page",
    ),
    "proxy": Trouble(
        "the proxy is away, or refuses",
        "no way through the proxy to --feed_url",
        "correct --http_proxy (or HTTPS_PROXY), its user and password, or let the proxy allow the host",
    ),
    "no key": Trouble(
        "the secret's reference leads nowhere",
        "the API key cannot be read: check --feed_api_key",
        "make the file, variable or secret readable here",
    ),
    "protocol": Trouble(
        "broken HTTP",
        "the answer was not valid HTTP",
        "if it lasts: correct --feed_url or what is in between",
    ),
    "204": Trouble(
        "204",
        "the service says that the stream has ended (204)",
        "this connection is not opened again, others go on: restart the job if the service does not mean it",
    ),
    "401": Trouble(
        "401",
        "the service rejected the API key (401): check --feed_api_key",
        "give a valid key; one that changed in a file or secret manager is read again by itself",
    ),
    "403": Trouble(
        "403",
        "the API key may not read the event stream (403): check its permissions",
        "give the key that right, or another key",
    ),
    "404": Trouble(
        "404",
        "there is no event stream at this address (404): check --feed_url",
        "give the service's root, without a path: --feed_url=https://api.grantex.dev",
    ),
    "redirect": Trouble(
        "301, 302, 303, 307, 308",
        "the service redirects elsewhere ({status}), where the key is not sent: correct --feed_url",
        "give the address that it redirects to",
    ),
    "slots": Trouble(
        "429 TOO_MANY_CONNECTIONS, and another stream is open",
        "all five stream slots of this account are taken: carrying on with {open} open",
        "end the other programs that read this account's feed, or lower their --feed_connections",
    ),
    "no slot": Trouble(
        "429 TOO_MANY_CONNECTIONS, and no stream is open",
        "all five stream slots of this account are taken, perhaps by connections that are dead: they are "
        "freed only after five minutes without a new attempt",
        "end the other programs that read this account's feed; do not restart this one, as each attempt "
        "begins the five minutes again",
    ),
    "429": Trouble(
        "429",
        "too many requests a minute for this account's plan (429)",
        "if it lasts: see what else uses the key, or take another plan",
    ),
    "status": Trouble("any other status", "the service answered {status}"),
    "in between": Trouble(
        "a status below 500 in words that are not the service's",
        IN_BETWEEN,
        "let this program through what stands in between, or correct --feed_url",
    ),
    "no upgrade": Trouble(
        "a WebSocket is asked for, and the answer is that for a plain request",
        "the answer to the request for a WebSocket was {status}, as for one without `Upgrade`: something "
        "in between drops that header. Let the proxy or load balancer pass `Upgrade` and `Connection` on "
        "(nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "
        '"upgrade"), or set --feed_transport=sse',
        "as it says",
    ),
    "no handshake": Trouble(
        "101 without a WebSocket's headers",
        "what answered 101 is no WebSocket: check --feed_url, and what is in between",
        "correct --feed_url, or set --feed_transport=sse",
    ),
    "no websocket": Trouble(
        "bytes that break RFC 6455",
        "what came over the WebSocket breaks its protocol",
        "if it lasts: set --feed_transport=sse, and look at what stands in between",
    ),
}
