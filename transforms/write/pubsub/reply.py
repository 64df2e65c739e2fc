"""What Pub/Sub's answers mean for each event of a batch. Pure.

Source: "Error codes" of Pub/Sub's reference; a request is taken as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from transforms.write.bigquery.reply import (
    FAILED_PRECONDITION,
    INVALID_ARGUMENT,
    NAMES,
    NOT_FOUND,
    PERMISSION_DENIED,
    RESOURCE_EXHAUSTED,
    UNAUTHENTICATED,
    UNIMPLEMENTED,
    is_too_large,
    said,
)
from transforms.write.contract import Outcome
from transforms.write.over_http.outcome import KEPT

__all__ = ["UNAUTHENTICATED", "published", "status_outcome"]

MENDED = f"{KEPT} when this is mended"
ADVICE = {
    UNAUTHENTICATED: "the credentials are not valid; give a service account or user that is",
    PERMISSION_DENIED: "grant the service account roles/pubsub.publisher on the topic",
    NOT_FOUND: "create the topic, or correct --pubsub_topic",
    FAILED_PRECONDITION: "look at the topic's encryption key and its state",
    UNIMPLEMENTED: "--pubsub_endpoint does not serve Pub/Sub over gRPC",
}
# gRPC's words when not even a connection came about: nothing was sent.
NOT_SENT = (
    "failed to connect to all",
    "DNS resolution failed",
    "connections to all backends failing",
)


def published(where: str, answered: int, sent: Sequence[int], rejected: Mapping[int, str]) -> Outcome | None:
    """The outcome of an answer with the ids of `answered` messages, in the order of `sent`."""
    later = sent[answered:]
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
        cause = f"{where}: its certificate is not trusted. {MENDED}: give the authority with --ca_file."
        return Outcome(rejected, sent, cause=cause, blocked=True)
    if advice := ADVICE.get(code):
        return Outcome(rejected, sent, cause=f"{where} answered {answer}. {MENDED}: {advice}.", blocked=True)
    unknown = code != RESOURCE_EXHAUSTED and not any(words in message for words in NOT_SENT)
    return Outcome(rejected, sent, cause=f"{where}: {answer}. {KEPT}.", unknown=unknown)
