"""The header that proves who we are: its secret is read at first use, and again when it is refused."""

from __future__ import annotations

from collections.abc import Callable

from transforms.secret import Secret
from transforms.secret_value import usable
from transforms.write.over_http.connection import HttpConnection, Reply, Target
from transforms.write.over_http.outcome import is_credential


def by_status(reply: Reply) -> bool:
    """Whether a reply's status says that the credential was refused."""
    return is_credential(reply.status)


class Credential:
    """Posts over `connection` with the secret in `header`, behind `prefix`.

    what: the secret in plain words, for errors. is_refused: whether a reply refuses it.
    """

    def __init__(
        self,
        connection: HttpConnection,
        secret: Secret,
        what: str,
        header: str,
        prefix: str = "",
        is_refused: Callable[[Reply], bool] = by_status,
    ) -> None:
        self._connection = connection
        self._secret = secret
        self._what = what
        self._header = header
        self._prefix = prefix
        self._is_refused = is_refused
        self._value = ""

    def post(self, body: bytes, target: Target | None = None) -> Reply:
        """Post once; a second time only after a refused secret that has meanwhile been replaced.

        Raises SecretError, and httpx.TransportError when no status line came back.
        """
        if not self._value:
            self._read()
        reply = self._connection.post(body, target)
        if self._is_refused(reply) and self._read():
            reply = self._connection.post(body, target)
        return reply

    def _read(self) -> bool:
        """Read the secret again; True when it is another one. Raises SecretError, never with the value."""
        value = usable(self._secret.read(), self._what)
        if value == self._value:
            return False
        self._value = value
        self._connection.set_header(self._header, f"{self._prefix}{value}")
        return True
