"""Splunk: events to its HTTP Event Collector (HEC), at least once, found again by the field `event_id`."""

from __future__ import annotations

import string
import time
import uuid
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from typing import ClassVar, Literal

import msgspec

from transforms.batch import BatchPolicy, batches
from transforms.clock import Clock, SystemClock
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.readers import address_fault
from transforms.secret import Secret
from transforms.setting import setting, shared
from transforms.shared_events import Lines, encoded
from transforms.way_out import USUAL, WayOut
from transforms.write.asked import Asked, asked_for
from transforms.write.contract import Destination, Outcome, Writer, finding
from transforms.write.created_at import MAX_FRACTION, epoch_texts
from transforms.write.failure import asked
from transforms.write.over_http.connection import Credential, HttpConnection, Reply, gzip
from transforms.write.splunk.acknowledge import AcknowledgedWriter, Shared
from transforms.write.splunk.channel import CHANNEL_HEADER, Channel, connect, where
from transforms.write.splunk.indexes import INDEX, INDEX_IN_WORDS, ByType, Indexes, pairs, read_rules
from transforms.write.splunk.reply import NO_DATA, outcome_of, read_reply

# 1 MB a request is what Splunk Cloud advises (Enterprise takes 800 MB by default); 500 events of the feed
# are 200 kB, and 2 s is what a search for the newest events does not notice.
POLICY = BatchPolicy(max_events=500, max_bytes=1_000_000, max_age=2.0)

# One request is encoded and packed while another waits for its answer: at 50 ms a round trip to Splunk Cloud
# that makes 20,000 events/s, more than the feed sends. Each one more is a thread and a socket.
WRITERS = 2
# Most of these threads only wait, and share four sockets: 64 batches of 500 made 21,000 events/s with
# indexers that acknowledge after a second and 9,000 after three, where 2 of them made 990 and 330.
AWAITING = 64

encode_text = msgspec.json.encode


@dataclass(frozen=True)
class Splunk(Destination):
    """Settings of Splunk HEC.

    url: HEC's root, "https://host:8088"; a pasted ".../services/collector/event" is understood.
    token: a reference to the HEC token; read on the worker, and again when Splunk refuses it.
    index: must exist and be allowed for the token.
    index_by_type: "TYPE_OR_PATTERN=INDEX" texts; the first that matches an event's type names its index, and
        where none does it is `index`. Each of them must exist and be allowed for the token.
    source, sourcetype, host: metadata of each event; host None leaves it to Splunk.
    compression: of requests; HEC takes gzip only.
    way_out: the proxy, the authorities to trust beside the usual ones, the certificate to show.
    acknowledge: an event is delivered only when an indexer has acknowledged that it is indexed. The token
        must have indexer acknowledgement, which Splunk Cloud offers to Firehose only.
    acknowledge_wait: seconds that one attempt waits for that; what is not acknowledged by then is not sent
        again, but asked for by the next attempt. On a cluster as well: no bundle waits that long, as an
        attempt goes on between bundles; one whose batch moves to another process meanwhile is made again.
    acknowledge_timeout: seconds after which what is not acknowledged is sent again.
    concurrency: batches under way at once; 0 is 2, or 64 with acknowledge, where most of them only wait.
    """

    url: str = setting(
        "Root of the HTTP Event Collector.",
        called="hec_url",
        url="/services/collector",
        example="https://splunk.example.com:8088",
    )
    token: Secret = setting("HEC token.", called="hec_token", example="env:SPLUNK_TOKEN")
    index: str = setting(
        "Index that events go to.",
        "main",
        pattern=INDEX,
        right=INDEX_IN_WORDS,
    )
    source: str = setting("Splunk's source of each event.", "grantex")
    sourcetype: str = setting("Splunk's sourcetype of each event.", "_json")
    host: str | None = setting("Splunk's host of each event; without it Splunk puts the sender's.", None)
    compression: Literal["gzip", "none"] = shared("http_compression", "gzip")
    way_out: WayOut = shared("way_out", USUAL)
    acknowledge: bool = setting(
        "Delivered is what an indexer has acknowledged; the token must have acknowledgement.", False
    )
    policy: BatchPolicy = batches(POLICY, "in one request", compressed=True)
    concurrency: int = 0
    # Indexers that replicate take seconds, busy ones tens: shorter attempts would call that an outage.
    acknowledge_wait: float = 30.0
    # Splunk's own connector for Kafka, and Vector, send again after five minutes as well.
    acknowledge_timeout: float = 300.0
    index_by_type: tuple[str, ...] = setting(
        "Index of events of a type or shell pattern; the first that matches counts, else --splunk_index.",
        (),
        read=read_rules,
        placeholder="TYPE=INDEX,TYPE=INDEX",
        example="grant.*=identity,wallet.*=payments",
    )
    asked: Asked = asked_for()

    indexes: Indexes = field(init=False, repr=False, compare=False)

    name: ClassVar[str] = "splunk"
    title: ClassVar[str] = "Splunk HEC"

    def __post_init__(self) -> None:
        if fault := address_fault(self.url):
            raise ValueError(f"url {fault}")
        if not self.concurrency:
            object.__setattr__(self, "concurrency", AWAITING if self.acknowledge else WRITERS)
        object.__setattr__(self, "_shared", Shared())
        object.__setattr__(self, "indexes", Indexes(self.index, self.index_by_type))
        # Text around the raw bytes, made once; a frozen dataclass lets itself be written only like this.
        around = Envelope(self)
        object.__setattr__(self, "_around", around)
        object.__setattr__(self, "_fixed", around.fixed_size)

    def size(self, event: Event) -> int:
        """The most bytes of `event` in an uncompressed request: a batch's body is no larger than their sum.

        Each event is asked for its size on the way in, so this is no exact sum: `time` counts as its
        longest text, and an id with a sign that may need escaping as if all of it did.
        """
        size: int = len(event.raw) + len(event.id) + self._fixed  # type: ignore[attr-defined]
        return size if is_plain(event.id) else size + MOST_ESCAPED * len(event.id)

    def sizes(self, events: Sequence[Event]) -> Iterable[int]:
        """As `size`, a tenth of the price where ids are plain and as long as each other, as usual."""
        fixed: int = self._fixed  # type: ignore[attr-defined]
        ids = [event.id for event in events]
        joined, longest = "".join(ids), max(map(len, ids), default=0)
        if len(joined) < longest * len(ids) or not is_plain(joined):
            return map(self.size, events)
        fixed += longest
        return [len(event.raw) + fixed for event in events]

    def encode(self, events: Sequence[Event]) -> bytes:
        """The uncompressed body of a request: one JSON object and a newline an event."""
        around: Envelope = self._around  # type: ignore[attr-defined]
        return encoded(events, self.form(), around.encode, around.lines)

    def form(self) -> Hashable:
        """Its class (another one may make something else of an event) and the envelope."""
        around: Envelope = self._around  # type: ignore[attr-defined]
        return type(self), around.middle, self.index_by_type

    def body(self, events: Sequence[Event]) -> bytes:
        """The body as it is sent."""
        body = self.encode(events)
        return gzip(body) if self.compression == "gzip" else body

    def target(self) -> str:
        """The indexes, and where HEC is."""
        return f"index {self.indexes} at {where(self.url).partition(' at ')[2]}"

    def preflight(self) -> Iterator[Finding]:
        """An empty request: HEC answers "No data" (code 5) to a token that is good, and indexes nothing.

        Its health page would say that all is well to any token.
        """
        connection, credential = self.connect()
        if self.acknowledge:
            connection.set_header(CHANNEL_HEADER, str(uuid.uuid4()))
        empty = gzip(b"") if self.compression == "gzip" else b""

        def judge(reply: Reply) -> Outcome | None:
            if read_reply(reply.status, reply.body).code == NO_DATA:
                return None
            status, headers, refused = reply.status, reply.headers, partial(self.indexes.refused, ())
            return outcome_of(where(self.url), refused, status, headers, reply.body, 0, time.time())

        try:
            outcome = asked(lambda: credential.post(empty), judge, 0, where(self.url))
        finally:
            connection.close()
        yield finding("the HEC token", outcome)

    def check(self) -> Iterator[Finding]:
        """As `preflight`; then one event, as only that tells of the index. It stays there."""
        from transforms.write.splunk.check import check

        yield from check(self)

    def open(self, clock: Clock | None = None) -> Writer:
        """Raises OSError when an authority or certificate cannot be read."""
        clock = clock or SystemClock()
        if not self.acknowledge:
            return SplunkWriter(self, clock)
        shared: Shared = self._shared  # type: ignore[attr-defined]
        return AcknowledgedWriter(
            shared,
            lambda: Channel(*self.connect(), clock),
            self.body,
            clock,
            wait=self.acknowledge_wait,
            timeout=self.acknowledge_timeout,
            where=where(self.url),
            indexes=self.indexes,
        )

    def connect(self) -> tuple[HttpConnection, Credential]:
        """Connects when something is posted. Raises OSError when an authority or certificate cannot be
        read."""
        return connect(self.url, self.token, self.way_out, compressed=self.compression == "gzip")


TIME = b',"time":'
TIME_SIZE = len(TIME) + 12 + 1 + MAX_FRACTION  # seconds until the year 33658, a point, the fraction
HEAD = b'{"event":'
TAIL = b'"}}\n'
MOST_ESCAPED = 5  # bytes that a character of an id may need beyond one: \u0000


_PLAIN = string.ascii_letters.encode() + string.digits.encode() + b"_"


def is_plain(text: str) -> bool:
    """Letters, digits and underscores of ASCII, like the service's ids: no JSON string escapes those."""
    return not text.encode().translate(None, _PLAIN)


class Envelope:
    """The constant text around the raw bytes of an event."""

    def __init__(self, settings: Splunk) -> None:
        metadata = {"source": settings.source, "sourcetype": settings.sourcetype, "index": settings.index}
        if settings.host is not None:
            metadata["host"] = settings.host
        self.middle = middle_of(metadata)
        made = [
            (each, middle_of({**metadata, "index": index})) for each, index in pairs(settings.index_by_type)
        ]
        # Only where an index depends on the type is an event asked for its type.
        self._middles = ByType(made, self.middle) if made else None
        longest = max(len(middle) for middle in (self.middle, *(middle for _, middle in made)))
        self.fixed_size = len(HEAD) + TIME_SIZE + longest + len(TAIL)

    def encode(self, events: Sequence[Event]) -> bytes:
        """One object an event. All of a batch at once takes a third of one after the other."""
        return b"".join(self._texts(events))

    def lines(self, events: Sequence[Event]) -> Lines:
        """As `encode`, and where each object ends."""
        texts = self._texts(events)
        if self._middles is None and b"" not in texts[3::7]:  # only these differ in length
            around = len(HEAD) + len(TIME) + len(self.middle) + len(TAIL)
            varying = zip(texts[1::7], texts[3::7], texts[5::7], strict=True)
            ends = list(accumulate([around + len(raw) + len(time) + len(id_) for raw, time, id_ in varying]))
        else:
            ends = list(accumulate(map(len, texts)))[6::7]
        return Lines(b"".join(texts), ends)

    def _texts(self, events: Sequence[Event]) -> list[bytes]:
        """Seven for each event."""
        texts = [HEAD, b"", TIME, b"", self.middle, b"", TAIL] * len(events)
        texts[1::7] = [event.raw for event in events]
        texts[3::7] = times = epoch_texts([event.created_at for event in events])
        texts[5::7] = id_texts([event.id for event in events])
        if (by_type := self._middles) is not None:
            texts[4::7] = [by_type[event.type] for event in events]
        if b"" in times:  # Splunk stamps the event on arrival, which is the best that is left
            texts[2::7] = [TIME if time else b"" for time in times]
        return texts


def middle_of(metadata: Mapping[str, str]) -> bytes:
    """What stands between an event's time and its id."""
    return b"," + encode_text(metadata)[1:-1] + b',"fields":{"event_id":"'


def id_texts(ids: Sequence[str]) -> list[bytes]:
    """Event ids as they stand between the quotes of a JSON string."""
    if is_plain("".join(ids)):
        return "\n".join(ids).encode().split(b"\n")
    return [encode_text(event_id)[1:-1] for event_id in ids]


class SplunkWriter(Writer):
    """One connection to HEC, without acknowledgement: what HEC takes is delivered."""

    def __init__(self, settings: Splunk, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._connection, self._credential = settings.connect()
        self._where = where(settings.url)

    def write(self, batch: Batch) -> Outcome | None:
        """Post `batch` once; a second time only after a refused token that has meanwhile been replaced."""
        events, indexes = batch.events, self._settings.indexes
        count = len(events)
        body = self._settings.body(events)
        batch.place = f"index {', '.join(indexes.of(events))}"

        def judge(reply: Reply) -> Outcome | None:
            now, refused = self._clock.now(), partial(indexes.refused, events)
            return outcome_of(self._where, refused, reply.status, reply.headers, reply.body, count, now)

        return asked(lambda: self._credential.post(body), judge, count, self._where)

    def close(self) -> None:
        self._connection.close()
