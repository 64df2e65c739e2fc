"""The way out, the same for every client: through which proxy, whom to trust, which certificate to show."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import ssl
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import certifi

from transforms.proxies import Proxy, first, proxy_for


@dataclass(frozen=True)
class WayOut:
    """Settings that feed and destinations carry; picklable, and without any secret's value.

    http_proxy: used for every host that is not this machine, over the environment's HTTPS_PROXY, HTTP_PROXY,
        ALL_PROXY and NO_PROXY. Those are read where a connection is made, which on a cluster is a worker.
    ca_file: PEM file of an authority to trust beside the usual ones.
    client_certificate, client_key: PEM files that feed and HTTP destinations are shown (mTLS). The key may
        lie in the certificate's file.
    """

    http_proxy: Proxy | None = None
    ca_file: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None

    def proxy(self, url: str) -> Proxy | None:
        """The proxy between us and `url`, or None. Raises ProxyError."""
        return proxy_for(url, os.environ, self.http_proxy)

    def tls(self, client: bool = True) -> ssl.SSLContext:
        """A context that trusts the usual authorities and `ca_file`'s and, with `client`, shows our
        certificate. Raises OSError (ssl.SSLError for a file that holds no certificate)."""
        context = ssl.create_default_context(cadata=authorities(self.ca_file))
        if client and self.client_certificate:
            # OpenSSL would ask for a passphrase on the terminal.
            context.load_cert_chain(self.client_certificate, self.client_key, password=lambda: "")
        return context

    def bundle(self) -> str | None:
        """A file with all authorities, for libraries that want one; None where their own default is right.
        Raises OSError."""
        return bundle(authorities(self.ca_file)) if self.ca_file or usual() else None

    def roots(self) -> bytes | None:
        """All authorities as PEM, as gRPC wants them; None where its own default is right. Raises OSError."""
        return authorities(self.ca_file).encode() if self.ca_file or usual() else None

    def fault(self, error: OSError) -> str:
        """What `error` of reading certificates says, and whose file it is."""
        if error.filename is None:  # it was read, and is none
            return str(error)
        owner = "--ca_file" if error.filename == self.ca_file else "SSL_CERT_FILE or SSL_CERT_DIR"
        return f"{error.filename} of {owner} cannot be read ({error.strerror})"

    def lend(self, environ: MutableMapping[str, str]) -> None:
        """Tell clients that cannot be told otherwise, such as Beam's own of gs:// and s3://, by the variables
        that they read. Whatever is in `environ` for authorities stays. Raises SecretError."""
        if self.http_proxy is not None:
            for name in ("https_proxy", "http_proxy"):
                environ[name] = environ[name.upper()] = self.http_proxy.url_with_login()
            environ["no_proxy"] = environ["NO_PROXY"] = "localhost,127.0.0.1,::1,169.254.169.254"
        # A file that cannot be read has been refused before, or nobody needs it.
        with contextlib.suppress(OSError):
            file = self.bundle()
            if file is None:
                return
            for name in ("REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
                environ.setdefault(name, file)

    def grpc_options(self, endpoint: str) -> list[tuple[str, Any]]:
        """Options of a channel to `endpoint` (a URL). gRPC's own reading of the environment sends even an
        emulator on this machine through the proxy. Raises ProxyError, SecretError."""
        proxy = self.proxy(endpoint)
        if proxy is None:
            return [("grpc.enable_http_proxy", 0)]
        return [("grpc.http_proxy", proxy.url_with_login())]

    def proxies_of(self, url: str) -> dict[str, str]:
        """The `proxies` of botocore's Config and of a session of requests, for `url`; empty for the direct
        way, which must be said as well: botocore reads the environment without it. Raises ProxyError,
        SecretError."""
        proxy = self.proxy(url)
        return {} if proxy is None else dict.fromkeys(("http", "https"), proxy.url_with_login())

    def aws(self, session: Any, region: str | None) -> Any:
        """Have every client of a botocore session go this way, also those that fetch its credentials (STS,
        SSO); returns it. Raises OSError, ProxyError, SecretError."""
        from botocore.config import Config  # type: ignore[import-untyped]

        url = f"https://sts.{region or 'us-east-1'}.amazonaws.com"
        session.set_default_client_config(Config(proxies=self.proxies_of(url)))
        if file := self.bundle():
            session.set_config_variable("ca_bundle", file)
        return session


USUAL = WayOut()


def usual() -> str:
    """The file or directory that takes the place of the usual authorities, by OpenSSL's own variables; or
    ""."""
    return first(os.environ, ("SSL_CERT_FILE", "SSL_CERT_DIR"))[1]


def authorities(ca_file: str | None) -> str:
    """The usual authorities (Mozilla's, unless SSL_CERT_FILE or SSL_CERT_DIR names others) and those of
    `ca_file`, as PEM. Raises OSError, which says which file cannot be read."""
    texts = [certificates(Path(usual() or certifi.where()))]
    if ca_file:
        texts.append(certificates(Path(ca_file)))
    return "\n".join(texts)


def certificates(path: Path) -> str:
    """What a PEM file, or all of them in a directory, holds. Raises OSError, ssl.SSLError among them."""
    files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
    # Comments may be in any encoding; the certificates themselves are ASCII.
    texts = [file.read_bytes().decode("ascii", "ignore") for file in files]
    found = "\n".join(text for text in texts if "-----BEGIN " in text)
    if not found:
        raise ssl.SSLError(f"{path} holds no certificate (PEM, -----BEGIN CERTIFICATE-----)")
    return found


@functools.cache
def bundle(pem: str) -> str:
    """The path of a file of this process with `pem` in it."""
    handle, path = tempfile.mkstemp(prefix="grantex-beam-", suffix=".pem")
    with os.fdopen(handle, "w") as file:
        file.write(pem)
    atexit.register(_remove, path, os.getpid())
    return path


def _remove(path: str, process: int) -> None:
    if os.getpid() == process:  # not a child's, which has our list of things to do at its end
        with contextlib.suppress(OSError):
            os.unlink(path)
