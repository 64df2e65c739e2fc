"""Tokens that sign in at Amazon MSK (IAM) and Google's Managed Kafka, renewed before they expire.

librdkafka asks for one when it starts and after four fifths of each one's time, on a thread of its own.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
import threading
import time
from collections.abc import Mapping
from datetime import timezone
from typing import Any, Literal, NamedTuple, Protocol

from transforms.secret import SecretError, shown
from transforms.way_out import WayOut
from transforms.write.advice import KAFKA

Kind = Literal["msk-iam", "google"]
SIGNER = "aws_msk_iam_sasl_signer.MSKAuthTokenProvider"
# b-1.NAME.ID.c2.kafka.REGION.amazonaws.com and boot-ID.c1.kafka-serverless.REGION.amazonaws.com
REGION = re.compile(r"\.kafka(?:-serverless)?\.([a-z0-9-]+)\.amazonaws\.com", re.IGNORECASE)
SETTINGS: Mapping[str, str] = {"security.protocol": "SASL_SSL", "sasl.mechanism": "OAUTHBEARER"}
ALIASES = {"sasl.mechanisms": "sasl.mechanism"}
UNSECURED = "enable.sasl.oauthbearer.unsecure.jwt"


class TokenError(SecretError):
    """There is no token; `kind` is the failure's name among Kafka's in advice.py."""

    def __init__(self, kind: str, said: str = "") -> None:
        advice = KAFKA[kind]
        what = advice.what.removeprefix(": ") + (f" ({said})" if said else "")
        super().__init__(f"{what}{f': {advice.do}' if advice.do else ''}")
        self.kind, self.said = kind, said


class Token(NamedTuple):
    """text: what the brokers are shown. expires: seconds since the epoch. account: whose it is, as far as
    that stays the same for as long as nobody changes the credentials; "" where it does not."""

    text: str
    expires: float
    account: str


class Signer(Protocol):
    """Makes a token of credentials that it finds. sign: raises TokenError. forget: reads them again next
    time. close: from another thread; whoever waits in `sign` gets none."""

    def sign(self) -> Token: ...

    def forget(self) -> None: ...

    def close(self) -> None: ...


class Tokens:
    """What librdkafka calls as `oauth_cb`."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.close = signer.close
        self._lock = threading.Lock()
        self._expires = 0.0
        self.account = ""
        self._error: TokenError | None = None  # since the latest token

    def __call__(self, _: str) -> tuple[str, float]:
        """A token, and when it expires. Raises TokenError, after which librdkafka asks again in 10 s."""
        return self.sign()[:2]

    def sign(self) -> Token:
        """A new token. Raises TokenError."""
        with self._lock:
            try:
                token = self._signer.sign()
            except TokenError as error:
                self._error = error
                raise
            self._error, self.account, self._expires = None, token.account, token.expires
            return token

    def forget(self) -> None:
        """The token was refused: read the credentials again, as somebody may have replaced them."""
        with self._lock:
            self._signer.forget()

    @property
    def still_good(self) -> bool:
        """Whether the latest token is good, whatever became of its successor."""
        return time.time() < self._expires

    @property
    def missing(self) -> TokenError | None:
        """Why there is no token that is good."""
        return None if self.still_good else self._error


def tokens(kind: Kind | None, servers: str, way_out: WayOut) -> Tokens | None:
    """Those of `kind`, for a cluster; nothing is read before the first is asked for."""
    if kind is None:
        return None
    return Tokens(Aws(servers, way_out) if kind == "msk-iam" else Google(way_out))


def fault(config: Mapping[str, Any]) -> str:
    """What settings of librdkafka there may not be beside a token; "" when all go together."""
    for key, value in config.items():
        right = SETTINGS.get(ALIASES.get(key, key))
        if right and str(value).upper() != right:
            return f"needs {key}={right}, which it sets by itself"
        if not right and (key.startswith("sasl.") or key == UNSECURED):
            return f"is a second way to sign in beside {key}: give one of them"
    return ""


class Aws:
    """Signs with AWS's usual credentials, by the extra package, for the region of the cluster."""

    def __init__(self, servers: str, way_out: WayOut) -> None:
        found = REGION.search(servers)
        self._named = found[1].lower() if found else None  # the region, where the servers' names tell it
        self._way_out = way_out
        self._session: Any = None

    def sign(self) -> Token:
        try:
            signer = importlib.import_module(SIGNER)
        except ImportError as error:
            raise TokenError("token_package", type(error).__name__) from None
        from botocore.credentials import CredentialProvider  # type: ignore[import-untyped]

        region, frozen = self._region(), self._credentials()

        class Given(CredentialProvider):  # type: ignore[misc]
            """The signer's own reading of credentials knows neither our proxy nor our authorities."""

            def load(self) -> Any:
                return frozen

        text, expires_ms = signer.generate_auth_token_from_credentials_provider(region, Given())
        # Those of a role change by themselves, with the session's token.
        return Token(text, expires_ms / 1000, "" if frozen.token else frozen.access_key)

    def forget(self) -> None:
        self._session = None

    def close(self) -> None:
        """botocore's own time-outs end whatever hangs."""

    def _region(self) -> str:
        region = self._named or self._opened().get_config_variable("region")
        if not region:
            raise TokenError("token_region")
        return str(region)

    def _opened(self) -> Any:
        import botocore.session  # type: ignore[import-untyped]

        if self._session is None:
            session = botocore.session.get_session()
            try:
                self._session = self._way_out.aws(session, self._named)
            except OSError as error:
                raise TokenError("token_way", self._way_out.fault(error)) from None
            except (SecretError, ValueError) as error:
                raise TokenError("token_way", shown(str(error))) from None
        return self._session

    def _credentials(self) -> Any:
        from botocore.exceptions import (  # type: ignore[import-untyped]
            BotoCoreError,
            ClientError,
            HTTPClientError,
        )

        try:
            credentials = self._opened().get_credentials()
            frozen = credentials and credentials.get_frozen_credentials()
        except HTTPClientError as error:  # STS or SSO; the metadata service is passed over
            raise TokenError("token_service", type(error).__name__) from None
        except (BotoCoreError, ClientError) as error:
            self._session = None
            raise TokenError("token_none", shown(str(error))) from None
        if not (frozen and frozen.access_key and frozen.secret_key):
            self._session = None  # somebody may write them to where botocore looks
            raise TokenError("token_none", "AWS's usual places have none")
        return frozen


class Google:
    """The access token of the application default credentials, wrapped as Managed Kafka wants it.

    The format is that of github.com/googleapis/managedkafka (kafka-auth-local-server).
    """

    def __init__(self, way_out: WayOut) -> None:
        self._way_out = way_out
        self._token: Any = None

    def forget(self) -> None:
        if self._token is not None:
            self._token.forget()

    def close(self) -> None:
        if self._token is not None:
            self._token.close()

    def sign(self) -> Token:
        from google.auth.exceptions import GoogleAuthError

        from transforms.write.google import CLOUD, GoogleToken, is_passing

        try:
            self._token = self._token or GoogleToken(scope=CLOUD, way_out=self._way_out)
        except OSError as error:
            raise TokenError("token_way", self._way_out.fault(error)) from None
        try:
            found = self._token.credentials()
        except GoogleAuthError as error:
            passes = is_passing(error)
            kind = "token_service" if passes else "token_none"
            raise TokenError(kind, shown(str(error)) if passes else type(error).__name__) from None
        account = getattr(found, "service_account_email", None)
        if not account:
            raise TokenError("token_none", "Google's credentials here are of no service account")
        return wrapped(found.token, found.expiry.replace(tzinfo=timezone.utc).timestamp(), account)


def wrapped(access_token: str, expires: float, account: str) -> Token:
    """Looks like a JWT: a header, claims, and the access token where the signature would be."""
    header = {"typ": "JWT", "alg": "GOOG_OAUTH2_TOKEN"}
    claims = {"exp": expires, "iss": "Google", "iat": time.time(), "scope": "kafka", "sub": account}
    parts = (json.dumps(header), json.dumps(claims), access_token)
    return Token(".".join(map(_encoded, parts)), expires, account)


def _encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
