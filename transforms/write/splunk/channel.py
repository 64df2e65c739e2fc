"""The way to HEC, and channels with acknowledgement: what was posted into one, what of that is indexed.

From Splunk's "About HTTP Event Collector Indexer Acknowledgment": ack ids count from 0 in each channel of
each indexer; an id that has once been answered true is false ever after; acknowledgements are known to the
indexer that took the request, and to no other.

What follows from it, so that nothing counts as indexed that is not:
- An id that does not go on counting was given by another indexer, or by one that has been restarted.
- A request whose answer was lost may have been taken by another indexer, which counts from 0 as well: an
  awaited id below the number of such requests could be answered by the wrong one.
In both cases the channel begins anew, with another GUID under which nobody can confuse ids.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Mapping
from urllib.parse import urlsplit

import httpx
import msgspec

from transforms.clock import Clock
from transforms.proxies import host_and_port
from transforms.secret import Secret
from transforms.way_out import WayOut
from transforms.write.answer import decoded
from transforms.write.failure import as_outcome, is_delivered
from transforms.write.over_http.connection import Credential, HttpConnection, Reply, Target
from transforms.write.splunk.reply import (
    INVALID_FORMAT,
    NO_DATA,
    UNKNOWN_CHANNEL,
    is_refused_token,
    is_taken,
    read_reply,
)

# Name and value of each cookie in `Set-Cookie` headers, several of which may have been joined by commas. What
# could not be sent back as a header (RFC 6265, 4.1.1) is read over.
SET_COOKIE = re.compile(r"(?:^|,\s*)([!#-+\--:<>-~]+?)=([!-+\--:<-~]*)(?=\s*(?:;|,|$))")


class CookieJar:
    """The cookies of one channel; all of them go back, as there is only one host and one root."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    def store(self, headers: Mapping[str, str]) -> bool:
        """Keep what a reply sets; True when a cookie that we have sent was replaced by another value."""
        replaced = False
        for name, value in SET_COOKIE.findall(headers.get("set-cookie", "")):
            replaced = replaced or self._cookies.get(name, value) != value
            if value:
                self._cookies[name] = value
            else:
                self._cookies.pop(name, None)
        return replaced

    @property
    def header(self) -> str:
        """The `Cookie` header; "" for none."""
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())


CHANNEL_HEADER = "X-Splunk-Request-Channel"
# An acknowledgement takes a second or more; asking four channels twice a second is nothing to an indexer,
# and costs a batch a quarter of a second on average.
POLL_SECONDS = 0.5
ACK_PATH = "ack"  # beside "event"
# What an indexer may say when it is asked about nothing, in a channel that it does not know yet.
HARMLESS = frozenset({NO_DATA, INVALID_FORMAT, UNKNOWN_CHANNEL})
MOVED = (
    "another indexer answers, or the same one restarted (behind a load balancer acknowledgement needs sticky "
    "sessions)"
)
NO_ID = "its answer came without an ack id"


class _Acks(msgspec.Struct, frozen=True):
    acks: dict[int, bool]


decode_acks = msgspec.json.Decoder(_Acks).decode


class Sent:
    """A request that HEC has taken: `acknowledged` once it is indexed, `gone` (why) once nobody can say.

    at: monotonic seconds. bell: rings whenever one of the two changes. ack_id, guid: which acknowledgement of
    which channel tells of it.
    """

    def __init__(
        self, channel: Channel, at: float, gone: str = "", *, ack_id: int = -1, guid: str = ""
    ) -> None:
        self.channel = channel
        self.at = at
        self.ack_id, self.guid = ack_id, guid
        self.bell = threading.Event()
        self.acknowledged = False
        self.gone = gone


class Channel:
    """One connection, one GUID at a time, one cookie jar. Safe for threads; one request is made at a time,
    so that an answer is judged before the next request can be taken elsewhere.

    begun: it is known that acknowledgements are to be had; until then no event is sent. poll_at: when the
    next poll is due, in monotonic seconds. trouble: what the last poll failed with.
    """

    def __init__(self, connection: HttpConnection, credential: Credential, clock: Clock) -> None:
        self._connection = connection
        self._credential = credential
        self._poll_target = connection.beside(ACK_PATH, {"Content-Type": "application/json"})
        self._clock = clock
        self._wire = threading.Lock()
        self._jar = CookieJar()
        self._replaced = False  # the last reply replaced a cookie that we had sent
        self._renewing = False  # the load balancer renews its cookies, so a new one says nothing
        self._awaited: dict[int, Sent] = {}
        self._last = -1
        self._lost = 0  # posts into this channel whose answer is not known
        self.begun = False
        self.closed = False
        self.poll_at = 0.0
        self.trouble = ""
        self._begin("")

    # Sending

    def post(self, body: bytes) -> tuple[Reply, Sent | None]:
        """Post once. Beside the reply stands what to await; None when HEC did not take the request.

        Until `begun`, the reply may be one to the question asked first, when that is a refusal: then
        nothing was sent. Raises SecretError, and httpx.TransportError when no status line came back.
        """
        with self._wire:
            if not self.begun and (refusal := self._ask_first()):
                return refusal, None
            try:
                reply = self._exchange(body)
            except httpx.TransportError as error:
                outcome = as_outcome(error, 1, "")
                if outcome is None or outcome.unknown:
                    self._lose()
                raise
            return reply, self._taken(reply)

    # Asking

    def poll(self) -> None:
        """Ask for everything that is awaited, unless somebody has done so just now."""
        with self._wire:
            now = self._clock.monotonic()
            if now < self.poll_at or not self._awaited:
                return
            self.poll_at = now + POLL_SECONDS
            ids = list(self._awaited)
            try:
                reply = self._exchange(_asking(ids), self._poll_target)
            except httpx.TransportError as error:
                self.trouble = f"the last poll failed: {error or type(error).__name__}"
                return
            self._judge_poll(reply)

    def give_up(self, sent: Sent, why: str) -> None:
        """Await this no longer."""
        with self._wire:
            self._settle(sent, gone=why)

    def close(self) -> None:
        """Let go of the connection; a request that hangs in another thread fails at once."""
        self.closed = True
        self._connection.close()

    # In here, under the lock

    def _ask_first(self) -> Reply | None:
        """Find out, before any event is sent, whether acknowledgements are to be had here; the reply if not.

        Asking twice also shows whether a load balancer renews its cookies with every answer.
        """
        for again in (False, True):
            reply = self._exchange(_asking([]), self._poll_target)
            if not is_delivered(reply.status) and read_reply(reply.status, reply.body).code not in HARMLESS:
                return reply
            self._renewing = again and self._replaced
        self.begun = True
        return None

    def _exchange(self, body: bytes, target: Target | None = None) -> Reply:
        if cookies := self._jar.header:
            self._connection.set_header("Cookie", cookies)
        reply = self._credential.post(body, target)
        self._replaced = self._jar.store(reply.headers)
        return reply

    def _taken(self, reply: Reply) -> Sent | None:
        said = read_reply(reply.status, reply.body)
        if said.code == UNKNOWN_CHANNEL:
            self._begin(MOVED)
        if not is_taken(reply.status, reply.body):
            if said.code is None:  # not HEC's words: whoever stands between may have sent it on all the same
                self._lose()
            return None
        now = self._clock.monotonic()
        if said.ack_id is None:
            # Cut, or the token has lost its acknowledgement: that is asked again.
            self.begun = False
            self._lose()
            return Sent(self, now, NO_ID)
        if not self._last < said.ack_id <= self._last + 1 + self._lost:
            self._begin(MOVED)
            return Sent(self, now, MOVED)
        if not self._awaited:
            self.poll_at = now + POLL_SECONDS
        self._last = said.ack_id
        sent = self._awaited[said.ack_id] = Sent(self, now, ack_id=said.ack_id, guid=self._guid)
        return sent

    def _judge_poll(self, reply: Reply) -> None:
        said = read_reply(reply.status, reply.body)
        if said.code == UNKNOWN_CHANNEL:
            self._begin(MOVED)
            return
        answer = decoded(decode_acks, reply.body) if is_delivered(reply.status) else None
        acks: Mapping[int, bool] = answer.acks if answer else {}
        if not acks:
            text = f": {said.text}" if said.text else ""
            self.trouble = f"the last poll was answered {reply.status}{text}"
            return
        self.trouble = ""
        indexed = [ack_id for ack_id, true in acks.items() if true]
        for ack_id in indexed:
            if sent := self._awaited.get(ack_id):
                self._settle(sent)
        if self._replaced and not indexed and not self._renewing:
            self._begin(MOVED)

    def _lose(self) -> None:
        """The answer to a post was lost: ids below the number of those say nothing any more."""
        self._lost += 1
        if min(self._awaited, default=0) < self._lost:
            self._begin(MOVED)

    def _settle(self, sent: Sent, gone: str = "") -> None:
        self._awaited = {number: one for number, one in self._awaited.items() if one is not sent}
        sent.acknowledged, sent.gone = not gone, gone
        sent.bell.set()

    def _begin(self, why: str) -> None:
        """Begin with a new GUID; of what is awaited nobody will ever say whether it is indexed."""
        for sent in list(self._awaited.values()):
            self._settle(sent, gone=why)
        self._last, self._lost = -1, 0
        self._guid = str(uuid.uuid4())
        self._connection.set_header(CHANNEL_HEADER, self._guid)


def _asking(ids: list[int]) -> bytes:
    return msgspec.json.encode({"acks": ids})


EVENT_PATH = "/services/collector/event"
# What people paste instead of the root.
PASTED_PATH = re.compile(r"/services/collector(/event(/1\.0)?)?/*$|/+$")


def connect(
    url: str, token: Secret, way_out: WayOut, *, compressed: bool
) -> tuple[HttpConnection, Credential]:
    """Connects when something is posted. url: HEC's root, or what was pasted for it.

    Raises OSError when an authority or certificate cannot be read."""
    headers = {"Content-Type": "application/json"}
    if compressed:
        headers["Content-Encoding"] = "gzip"
    connection = HttpConnection(_root(url) + EVENT_PATH, headers, way_out)
    credential = Credential(connection, token, "the HEC token", "Authorization", "Splunk ", is_refused_token)
    return connection, credential


def where(url: str) -> str:
    """The service as a person knows it."""
    parts = urlsplit(_root(url))
    return f"Splunk at {parts.scheme}://{host_and_port(parts.hostname or '', parts.port)}"


def _root(url: str) -> str:
    return PASTED_PATH.sub("", url)
