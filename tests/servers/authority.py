"""A certificate authority of the tests' own, and what it signs for servers and clients on loopback."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key as PEM files; `together` has both in one."""

    certificate: Path
    key: Path
    together: Path


class Authority:
    """Writes what it makes into `folder`. `file` is its own certificate, which nobody else trusts."""

    def __init__(self, folder: Path, name: str = "practice authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        made = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self.file = folder / f"{name.replace(' ', '-')}.pem"
        self.file.write_bytes(_pem(made.sign(self._key, hashes.SHA256())))

    def issue(self, name: str, *hosts: str) -> Pair:
        """A certificate for `name`, good for 127.0.0.1 and `hosts`, and nothing else."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName(
            [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *(x509.DNSName(host) for host in hosts)]
        )
        made = self._builder(_named(name), key).add_extension(here, critical=False)
        certificate = _pem(made.sign(self._key, hashes.SHA256()))
        private = _private(key)
        pair = Pair(*(self._folder / f"{name}-{what}.pem" for what in ("certificate", "key", "both")))
        pair.certificate.write_bytes(certificate)
        pair.key.write_bytes(private)
        pair.together.write_bytes(private + certificate)
        return pair

    @property
    def key_file(self) -> Path:
        """The authority's own key, for a proxy that makes certificates by itself."""
        path = self.file.with_suffix(".key")
        path.write_bytes(_private(self._key))
        return path

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
