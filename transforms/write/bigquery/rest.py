"""BigQuery's REST API through google-cloud-bigquery, whose requests go over our own connections.

Nothing is retried in here (`retry=None`): the outbox decides what is tried again, and when.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import httpx
import msgspec
from google.api_core.client_info import ClientInfo
from google.api_core.exceptions import Conflict, GoogleAPICallError, NotFound
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from google.cloud.bigquery import Client, DatasetReference, Table

from transforms.preflight import Finding
from transforms.secret import SecretError
from transforms.way_out import WayOut
from transforms.write.bigquery.reply import (
    ForeignReply,
    RowFault,
    foreign_outcome,
    own_reply,
    rest_outcome,
)
from transforms.write.bigquery.table import definition, mismatch
from transforms.write.contract import Outcome, finding
from transforms.write.failure import ONCE_FIXED, as_outcome
from transforms.write.google import FOREIGN, GoogleHttp, GoogleToken, rest_error, token_outcome
from transforms.write.over_http.connection import user_agent

if TYPE_CHECKING:
    from transforms.write.bigquery.destination import BigQuery

REST_ENDPOINT = "https://bigquery.googleapis.com"
# One small request each; Google's own client waits longer, but a writer must not hang at its start.
TABLE_SECONDS = 15.0
ABOUT_TABLE: Any = {"retry": None, "timeout": TABLE_SECONDS}
OF_ROWS: Any = {"retry": None, "timeout": None}  # as every request over HTTP
# What a reply, or the way to it, can raise.
FAILED = (GoogleAPICallError, GoogleAuthError, ForeignReply, httpx.TransportError, SecretError)
Found = TypeVar("Found")


class Rest:
    """The table of one writer: looked at, made, filled. Raises OSError when an authority cannot be read."""

    def __init__(self, settings: BigQuery, token: GoogleToken) -> None:
        self._name, self._schema = settings.name_of_table, settings.schema
        self._table = Table.from_api_repr(definition(self._name, self._schema))
        self._session = _Session(settings.way_out, token)
        session: Any = self._session
        self._client = Client(
            project=self._name.project,
            credentials=AnonymousCredentials(),  # the session knows the true ones
            client_options={"api_endpoint": settings.endpoint or REST_ENDPOINT},
            client_info=ClientInfo(user_agent=user_agent()),
            _http=session,
        )

    def insert(self, rows: Sequence[Mapping[str, str]], ids: Sequence[str]) -> Sequence[RowFault]:
        """Send rows; returns what is said of those that were not taken. Raises one of FAILED."""
        faults = _called(
            lambda: self._client.insert_rows_json(
                self._table.reference,
                rows,
                row_ids=ids,
                skip_invalid_rows=True,  # those that are valid go in although others are not
                **OF_ROWS,
            )
        )
        return _called(lambda: msgspec.convert(faults, Sequence[RowFault]))

    def ready(self, where: str, count: int) -> Outcome | None:
        """None when the table is there, perhaps since now, with our columns; else what that means for a
        batch of `count` events."""
        try:
            fault = self._look()
        except ForeignReply:
            fault = "the answer is not BigQuery's: check --bigquery_endpoint and what stands in between"
        except FAILED as error:  # whatever it was: of the batch nothing has been sent
            return replace(failed(error, count, where), unknown=False)
        if not fault:
            return None
        return Outcome(later=range(count), cause=f"{where}: {fault}. {ONCE_FIXED}.", blocked=True)

    def found(self) -> tuple[bool, str]:
        """Whether the table is there, and why our rows could not go into it or it could not be made; nothing
        is made. Raises one of FAILED."""
        try:
            return True, _called(lambda: mismatch(self._name, self._schema, self._get()))
        except NotFound:
            return False, self._dataset_missing()

    def close(self) -> None:
        """Let go; a request that hangs in another thread fails at once."""
        self._session.close()

    def _look(self) -> str:
        """Why our rows cannot go into the table; "" when they can. Raises one of FAILED."""
        try:
            found = self._get()
        except NotFound:
            if fault := self._create():
                return fault
            found = self._get()
        return _called(lambda: mismatch(self._name, self._schema, found))

    def _get(self) -> Any:
        found = _called(lambda: self._client.get_table(self._table.reference, **ABOUT_TABLE))
        return found.to_api_repr()

    def _create(self) -> str:
        """Make the table; returns why it cannot be made. Raises one of FAILED."""
        if fault := self._dataset_missing():
            return fault
        with contextlib.suppress(Conflict):  # another writer was quicker
            _called(lambda: self._client.create_table(self._table, **ABOUT_TABLE))
        return ""

    def _dataset_missing(self) -> str:
        """Why no table can be made in the dataset; "" when it is there. Raises one of FAILED."""
        name = self._name
        dataset = DatasetReference(name.project, name.dataset)
        try:
            _called(lambda: self._client.get_dataset(dataset, **ABOUT_TABLE))
        except NotFound:
            return (
                f"the dataset {name.project}.{name.dataset} does not exist, or these credentials may not see "
                "it; create it where the data is to live, for example "
                f"`bq --location=EU mk --dataset {name.project}:{name.dataset}`"
            )
        except GoogleAPICallError:
            pass  # who may not see a dataset may still make tables in it
        return ""


TABLE, DATASET = "the table", "the dataset, as the table is made when the first event comes"


def look(settings: BigQuery) -> Iterator[Finding]:
    """The preflight of either way to write. Raises OSError when an authority cannot be read."""
    what, where = TABLE, f"BigQuery table {settings.name_of_table}"
    token = GoogleToken(anonymous=settings.anonymous, way_out=settings.way_out)
    rest = Rest(settings, token)
    try:
        there, fault = rest.found()
    except FAILED as error:
        yield finding(what, failed(error, 0, where))
    else:
        what = TABLE if there else DATASET
        yield Finding(what, not fault, f"{where}: {fault}." if fault else "")
    finally:
        rest.close()
        token.close()


def failed(error: Exception, count: int, where: str) -> Outcome:
    """The outcome of one of FAILED for a batch of `count` events."""
    if isinstance(error, GoogleAuthError):
        return token_outcome(error, count, where)
    if isinstance(error, ForeignReply):
        return foreign_outcome(where, count)
    if isinstance(error, GoogleAPICallError):
        reply = error.response
        return rest_outcome(where, reply.status_code, reply.headers, reply.content, count, time.time())
    outcome = as_outcome(error, count, where)
    if outcome is None:
        raise error
    return outcome


def _called(call: Callable[[], Found]) -> Found:
    """`call()`; an answer that Google's classes, or ours, cannot read becomes a ForeignReply."""
    try:
        return call()
    except FOREIGN as error:
        raise ForeignReply from error


class _Session:
    """What Google's client takes for a requests.Session."""

    def __init__(self, way_out: WayOut, token: GoogleToken) -> None:
        self._http = GoogleHttp(way_out)
        self._token = token

    def request(
        self, *, url: str, method: str, headers: Mapping[str, str], data: str | None, timeout: float | None
    ) -> _Response:
        """Raises GoogleAuthError, ForeignReply, httpx.TransportError."""
        proven = {**headers, **self._token.headers()}
        reply = self._http.send(method, url, proven, (data or "").encode(), timeout)
        if 200 <= reply.status < 300:
            found = own_reply(reply.status, reply.body)
        else:
            found = {"error": msgspec.to_builtins(rest_error(reply.body))}
            if reply.status == 401:
                self._token.forget()
        return _Response(reply.status, reply.headers, reply.body, found, _Asked(method, url))

    def close(self) -> None:
        self._http.close()


class _Asked(NamedTuple):
    method: str
    url: str


class _Response(NamedTuple):
    """What Google's client reads of a requests.Response."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    found: dict[str, Any]
    request: _Asked

    def json(self) -> dict[str, Any]:
        return self.found
