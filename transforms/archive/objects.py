"""Archives in a bucket, read back: S3 through boto3, Google Cloud Storage through its own client."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from transforms.archive.sources import ArchiveError, Shard, is_archived, lines_in
from transforms.secret import SecretError, redact
from transforms.way_out import USUAL, WayOut
from transforms.write.google import storage_client
from transforms.write.s3.destination import S3

if TYPE_CHECKING:
    from transforms.archive.choice import Selection

# Asked for in one request: large enough for a line's speed, small enough to ask for again.
PART = 8 * 1024 * 1024
# Passing troubles are waited out, some twenty seconds in all.
ATTEMPTS = 6


def directory_of(prefix: str) -> str:
    """What the keys under a prefix begin with; an object's own key stays as it is."""
    return prefix if not prefix or is_archived(prefix) else prefix.rstrip("/") + "/"


def ranges(size: int) -> Iterator[tuple[int, int]]:
    """First and last byte of each part of so many."""
    for start in range(0, size, PART):
        yield start, min(start + PART, size) - 1


@contextmanager
def client_of(source: S3Objects | GoogleObjects, name: str = "") -> Iterator[Any]:
    """A source's client, the same one for all its objects that a thread reads. What is raised meanwhile is
    ArchiveError; after that a new client reads its credentials anew.

    name: of the object that is read with it.
    """
    try:
        yield _client(source, threading.get_ident())
    except ArchiveError:
        raise
    except Exception as error:
        _client.cache_clear()
        raise source.error(error, name) from error


@lru_cache(maxsize=16)
def _client(source: S3Objects | GoogleObjects, thread: int) -> Any:
    # Each costs a walk through the chain of credentials, their token, and a TLS connection.
    return source.new_client()


@dataclass(frozen=True)
class S3Objects:
    """Objects of NDJSON in a bucket of S3, or of a service with its protocol.

    settings: bucket, prefix, and how they are reached; what is only for writing has no meaning here.
    """

    settings: S3
    letters: bool = False

    def __str__(self) -> str:
        place = f"s3://{self.settings.bucket}/{self.settings.prefix}".rstrip("/")
        return f"dead_letters:{place}" if self.letters else place

    def shards(self) -> list[Shard]:
        about = {"Bucket": self.settings.bucket, "Prefix": directory_of(self.settings.prefix)}
        with client_of(self) as client:
            pages = client.get_paginator("list_objects_v2").paginate(**about)
            found = [(one["Key"], one["Size"]) for page in pages for one in page.get("Contents", ())]
        return [Shard(key, size) for key, size in sorted(found) if is_archived(key)]

    def lines(
        self, shard: Shard, selection: Selection, counts: Counter[str]
    ) -> Iterator[tuple[Sequence[bytes], bool]]:
        return lines_in(self._parts(shard), f"{self}: {shard.name}")

    def _parts(self, shard: Shard) -> Iterator[bytes]:
        about = {"Bucket": self.settings.bucket, "Key": shard.name}
        with client_of(self, shard.name) as client:
            for first, last in ranges(shard.size):
                yield client.get_object(**about, Range=f"bytes={first}-{last}")["Body"].read()

    def new_client(self) -> Any:
        """botocore's own. Raises ArchiveError when there is no way out, and what botocore does."""
        from transforms.write.s3.writer import NoWayOut, new_client  # boto3 takes a third of a second

        try:
            return new_client(self.settings, ATTEMPTS)
        except NoWayOut as error:
            raise ArchiveError(f"{self} cannot be read: {error}") from None

    def error(self, error: Exception, key: str = "") -> ArchiveError:
        """What to say of whatever the client raised."""
        at = f" at {self.settings.endpoint}" if self.settings.endpoint else ""
        return ArchiveError(
            redact(
                f"{self}{at}{': ' if key else ''}{key} cannot be read: {error}. Reading takes "
                "s3:ListBucket on the bucket and s3:GetObject on its objects; what lies in Glacier must be "
                "restored before."
            )
        )


@dataclass(frozen=True)
class GoogleObjects:
    """Objects of NDJSON in a bucket of Google Cloud Storage; http:// in `endpoint` is an emulator, for which
    no credentials are read."""

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    way_out: WayOut = USUAL
    letters: bool = False

    def __str__(self) -> str:
        place = f"gs://{self.bucket}/{self.prefix}".rstrip("/")
        return f"dead_letters:{place}" if self.letters else place

    def shards(self) -> list[Shard]:
        with client_of(self) as client:
            blobs = client.list_blobs(self.bucket, prefix=directory_of(self.prefix) or None)
            found = [(blob.name, int(blob.size or 0)) for blob in blobs]
        return [Shard(name, size) for name, size in sorted(found) if is_archived(name)]

    def lines(
        self, shard: Shard, selection: Selection, counts: Counter[str]
    ) -> Iterator[tuple[Sequence[bytes], bool]]:
        return lines_in(self._parts(shard), f"{self}: {shard.name}")

    def _parts(self, shard: Shard) -> Iterator[bytes]:
        with client_of(self, shard.name) as client:
            blob = client.bucket(self.bucket).blob(shard.name)
            for first, last in ranges(shard.size):
                # As it is stored: what was uploaded as Content-Encoding: gzip would be unpacked on its way,
                # whole, whatever part was asked for. A part has no checksum.
                yield blob.download_as_bytes(start=first, end=last, raw_download=True, checksum=None)

    def new_client(self) -> Any:
        """Google's own. Raises ArchiveError."""
        # It has no use for a project, and would look for one.
        session = google_session(self.way_out, self.endpoint, READ_OBJECTS, str(self))
        return storage_client(project="none", **session)

    def error(self, error: Exception, name: str = "") -> ArchiveError:
        """What to say of whatever the client raised."""
        return ArchiveError(
            redact(
                f"{self}{': ' if name else ''}{name} cannot be read: {error}. Reading takes the role Storage "
                "Object Viewer on the bucket."
            )
        )


READ_OBJECTS = "https://www.googleapis.com/auth/devstorage.read_only"


def google_session(way_out: WayOut, endpoint: str | None, scope: str, who: str) -> dict[str, Any]:
    """Arguments of a client of Google's that reads: its credentials, a session that goes our way out, and the
    service's root. Raises ArchiveError."""
    from google.auth import default
    from google.auth.credentials import AnonymousCredentials
    from google.auth.exceptions import GoogleAuthError
    from google.auth.transport.requests import AuthorizedSession, Request

    root = endpoint or "https://www.googleapis.com"
    try:
        proxies, authorities = way_out.proxies_of(root), way_out.bundle()

        def on_our_way(session: Any) -> Any:
            # Left to itself it reads the environment in its own way.
            session.trust_env, session.proxies, session.verify = False, proxies, authorities or True
            return session

        asks: dict[str, Any] = {}
        if root.startswith("http://"):
            credentials: Any = AnonymousCredentials()  # type: ignore[no-untyped-call]
        else:
            request = Request()  # type: ignore[no-untyped-call]
            on_our_way(request.session)
            credentials, _ = default(scopes=(scope,), request=request)
            asks["auth_request"] = request
        made = on_our_way(AuthorizedSession(credentials, **asks))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise ArchiveError(f"{who} cannot be read: {way_out.fault(error)}") from None
    except (SecretError, GoogleAuthError) as error:
        raise ArchiveError(redact(f"{who} cannot be read: {error}")) from error
    options = {"client_options": {"api_endpoint": endpoint}} if endpoint else {}
    return {"credentials": credentials, "_http": made, **options}
