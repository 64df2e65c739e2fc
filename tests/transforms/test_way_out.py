"""Authorities, certificates and the way to libraries; the connections themselves are in tests/integration."""

from __future__ import annotations

import pickle
import ssl
from pathlib import Path

import certifi
import pytest

from transforms.proxies import parse_proxy
from transforms.way_out import WayOut

ONE = Path(certifi.where()).read_text().partition("-----END CERTIFICATE-----")
CERTIFICATE = ONE[0][ONE[0].index("-----BEGIN") :] + ONE[1] + "\n"
ALL = len(ssl.create_default_context(cafile=certifi.where()).get_ca_certs())
THROUGH = WayOut(parse_proxy("http://user:s3cret-word@proxy.test:3128"))


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def ca_file(tmp_path: Path) -> str:
    (tmp_path / "one.pem").write_bytes("# é\n".encode() + CERTIFICATE.encode())
    return str(tmp_path / "one.pem")


def test_the_usual_authorities_are_trusted() -> None:
    assert len(WayOut().tls().get_ca_certs()) == ALL
    assert WayOut().bundle() is None
    assert WayOut().roots() is None


def test_ca_file_is_trusted_beside_them(tmp_path: Path) -> None:
    own = tmp_path / "own.pem"
    own.write_text(CERTIFICATE)
    roots = WayOut(ca_file=str(own)).roots()
    assert roots is not None
    assert roots.decode("ascii").count("-----BEGIN CERT") == ALL + 1
    path = WayOut(ca_file=str(own)).bundle()
    assert path is not None
    assert Path(path).read_bytes() == roots
    assert WayOut(ca_file=str(own)).bundle() == path


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
def test_openssl_variables_replace_them(name: str, ca_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, ca_file if name == "SSL_CERT_FILE" else str(Path(ca_file).parent))
    assert len(WayOut().tls().get_ca_certs()) == 1
    roots = WayOut().roots()
    assert roots is not None
    assert roots.count(b"-----BEGIN CERT") == 1


@pytest.mark.parametrize("content", [None, "no certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_cannot_be_read_is_an_os_error(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    for way in (lambda: WayOut(ca_file=str(path)).tls(), lambda: WayOut().tls()):
        with pytest.raises(OSError):
            way()
        monkeypatch.setenv("SSL_CERT_FILE", str(path))


def test_it_pickles_and_shows_no_secret() -> None:
    assert pickle.loads(pickle.dumps(THROUGH)) == THROUGH
    assert "s3cret-word" not in repr(THROUGH)
    assert b"s3cret-word" not in pickle.dumps(THROUGH)


def test_grpc_is_told_of_the_proxy_and_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://env.test:1")
    assert WayOut().grpc_options("https://a.test") == [("grpc.http_proxy", "http://env.test:1")]
    assert THROUGH.grpc_options("https://a.test") == [
        ("grpc.http_proxy", "http://user:s3cret-word@proxy.test:3128")
    ]
    for local in ("http://127.0.0.1:9060", "http://localhost:9060", "http://[::1]:9060"):
        assert THROUGH.grpc_options(local) == [("grpc.enable_http_proxy", 0)]
