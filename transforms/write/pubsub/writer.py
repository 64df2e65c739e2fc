"""Publishes batches to a Pub/Sub topic, one request each; Google's client would batch and retry by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.auth.exceptions import GoogleAuthError
from google.iam.v1 import iam_policy_pb2  # type: ignore[import-untyped]
from google.pubsub_v1.types import pubsub

from transforms import pubsub_names as names
from transforms.event import Batch, Event
from transforms.preflight import Finding
from transforms.way_out import WayOut
from transforms.write import advice
from transforms.write.contract import Outcome, Writer, finding
from transforms.write.failure import KEPT, failed
from transforms.write.google import (
    INVALID_ARGUMENT,
    NAMES,
    PERMISSION_DENIED,
    PUBSUB,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNIMPLEMENTED,
    GoogleToken,
    channel,
    is_too_large,
    said,
    token_outcome,
)

__all__ = ["UNAUTHENTICATED", "published", "status_outcome"]
# gRPC's words when not even a connection came about: nothing was sent.
NOT_SENT = (
    "failed to connect to all",
    "DNS resolution failed",
    "connections to all backends failing",
)


def published(where: str, answered: int, sent: Sequence[int], rejected: Mapping[int, str]) -> Outcome | None:
    """The outcome of an answer with the ids of `answered` messages, in the order of `sent`; one with more ids
    than messages is not Pub/Sub's and says nothing of any."""
    later = sent[answered:] if answered <= len(sent) else sent
    if not (later or rejected):
        return None
    cause = f"{where} answered for {answered} of {len(sent)} messages. {KEPT}." if later else ""
    return Outcome(rejected, later, cause=cause or next(iter(rejected.values())), unknown=bool(later))


def status_outcome(
    where: str, code: int, message: str, sent: Sequence[int], rejected: Mapping[int, str]
) -> Outcome:
    """The outcome of a gRPC status that is not OK for the events `sent` (indexes of the batch)."""
    answer = f"{NAMES.get(code, f'code {code}')}: {said(message)}"
    if code == RESOURCE_EXHAUSTED and is_too_large(message):
        cause = f"{where} found the request too large ({answer}). It is sent again in halves."
        return Outcome(rejected, sent, cause=cause, too_large=True)
    if code == INVALID_ARGUMENT:
        if len(sent) == 1:
            return Outcome({**rejected, sent[0]: f"refused: {where} answered {answer}"}, cause=answer)
        # One message is to blame, and it is not said which: halves find it.
        cause = f"{where} refused the request ({answer}). It is sent again in halves."
        return Outcome(rejected, sent, cause=cause, too_large=True)
    if "CERTIFICATE_VERIFY_FAILED" in message:
        return replace(failed(where, advice.GOOGLE["certificate"], sent), rejected=rejected)
    if known := advice.PUBSUB.get(NAMES.get(code, "")):
        return replace(failed(where, known, sent, answer), rejected=rejected)
    unknown = code != RESOURCE_EXHAUSTED and not any(words in message for words in NOT_SENT)
    return Outcome(rejected, sent, cause=f"{where}: {answer}. {KEPT}.", unknown=unknown)


# A publish takes some 50 ms, but a full request 18 s at 4 Mbit/s, and one that is cut off may repeat. On a
# cluster no bundle waits for it.
PUBLISH_SECONDS = 30.0
LOOK_SECONDS = 10.0
MOST_NAMED = 20  # messages in a receipt by name
MAX_ATTRIBUTE_BYTES = 1024
GetTopicRequest = pubsub.GetTopicRequest.pb()
PublishRequest = pubsub.PublishRequest.pb()
Message = pubsub.PubsubMessage.pb()
Permissions = iam_policy_pb2.TestIamPermissionsRequest
RIGHT = "pubsub.topics.publish"


class PubSubWriter(Writer):
    """One connection; the topic takes all of a request or nothing."""

    def __init__(self, topic: str, endpoint: str, way_out: WayOut, *, anonymous: bool) -> None:
        self._topic = topic
        self._where = f"Pub/Sub topic {topic}"
        self._token = GoogleToken(anonymous=anonymous, scope=PUBSUB, way_out=way_out)
        self._channel = channel(endpoint, way_out)
        self._publish = self._channel.unary_unary(
            "/google.pubsub.v1.Publisher/Publish",
            PublishRequest.SerializeToString,
            pubsub.PublishResponse.pb().FromString,
        )
        self._get = self._channel.unary_unary(
            "/google.pubsub.v1.Publisher/GetTopic",
            GetTopicRequest.SerializeToString,
            pubsub.Topic.pb().FromString,
        )
        self._test = self._channel.unary_unary(
            "/google.iam.v1.IAMPolicy/TestIamPermissions",
            Permissions.SerializeToString,
            iam_policy_pb2.TestIamPermissionsResponse.FromString,
        )
        self._closed = False

    def write(self, batch: Batch) -> Outcome | None:
        """Publish the events that can be messages; the others are rejected."""
        count = len(batch.events)
        rejected = {i: why for i, event in enumerate(batch.events) if (why := unfit(event))}
        sent = [i for i in range(count) if i not in rejected]
        if not sent:
            return Outcome(rejected)
        messages = [message(batch.events[i]) for i in sent]
        try:
            reply = self._call(PublishRequest(topic=self._topic, messages=messages))
        except grpc.RpcError as error:
            code = error.code()
            if code is grpc.StatusCode.UNAUTHENTICATED:
                self._token.forget()
            number = code.value[0] if code else UNAUTHENTICATED
            return status_outcome(self._where, number, error.details() or "", sent, rejected)
        except GoogleAuthError as error:
            return token_outcome(error, count, self._where)
        except ValueError:  # gRPC's way to say that the channel is closed
            if not self._closed:
                raise
            return Outcome(later=range(count), cause=f"{self._where}: this program stops. {KEPT}.")
        batch.place = in_words(self._topic, reply.message_ids)
        return published(self._where, sum(map(bool, reply.message_ids)), sent, rejected)

    def preflight(self) -> Iterator[Finding]:
        """Ask which rights there are, which takes none; an emulator that knows no rights is asked for the
        topic."""
        what = "the right to publish"
        request = Permissions(resource=self._topic, permissions=[RIGHT])
        route = [("x-goog-request-params", f"resource={self._topic}")]
        try:
            metadata = [*route, *self._token.headers().items()]
            granted = self._test(request, timeout=LOOK_SECONDS, metadata=metadata).permissions
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                yield from self._look()
                return
            code = error.code()
            number = code.value[0] if code else UNAUTHENTICATED
            yield finding(what, status_outcome(self._where, number, error.details() or "", (), {}))
        except GoogleAuthError as error:
            yield finding(what, token_outcome(error, 0, self._where))
        else:
            # Of a topic that is not there all rights are missing as well.
            missing = failed(self._where, advice.PUBSUB["no right"], ())
            yield finding(what, None if RIGHT in granted else missing)

    def _look(self) -> Iterator[Finding]:
        """Look at the topic. Who may publish need not be allowed to look, so that a refusal tells nothing."""
        what = "the topic"
        try:
            self._get(GetTopicRequest(topic=self._topic), timeout=LOOK_SECONDS, metadata=self._metadata())
        except grpc.RpcError as error:
            code = error.code()
            number = code.value[0] if code else UNAUTHENTICATED
            outcome = status_outcome(self._where, number, error.details() or "", (), {})
            unsure = number in (PERMISSION_DENIED, UNIMPLEMENTED)
            yield Finding(what, None, outcome.cause) if unsure else finding(what, outcome)
        except GoogleAuthError as error:
            yield finding(what, token_outcome(error, 0, self._where))
        else:
            yield Finding(what, True)

    def close(self) -> None:
        """Let go; a publish that hangs in another thread fails at once."""
        self._closed = True
        self._channel.close()
        self._token.close()

    def _call(self, request: Any) -> Any:
        return self._publish(request, timeout=PUBLISH_SECONDS, metadata=self._metadata())

    def _metadata(self) -> list[tuple[str, str]]:
        return [("x-goog-request-params", f"topic={self._topic}"), *self._token.headers().items()]


def in_words(topic: str, ids: Sequence[str]) -> str:
    """The messages of one request by their ids, the first and the last of many."""
    named = ", ".join(ids) if len(ids) <= MOST_NAMED else f"{ids[0]} … {ids[-1]} ({len(ids)})"
    return f"{topic} messages {named}"


def unfit(event: Event) -> str:
    """Why `event` cannot be a message; "" when it can. One such message would have all others refused."""
    size = len(event.id.encode())
    return f"id_too_long: {size} bytes, of which Pub/Sub takes 1024" if size > MAX_ATTRIBUTE_BYTES else ""


def message(event: Event) -> Any:
    """The event's bytes, with what a subscription's filter and a reader's de-duplication need beside them."""
    attributes = {names.EVENT_ID: event.id}
    # An empty attribute is none, and one that is too long is in the data all the same.
    if event.type and len(event.type.encode()) <= MAX_ATTRIBUTE_BYTES:
        attributes[names.EVENT_TYPE] = event.type
    return Message(data=event.raw, attributes=attributes)
