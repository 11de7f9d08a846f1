"""Throw-away certificates: an authority that signs whatever a test asks for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from common.tls import Identity, Role, TlsFiles

BEGIN, END = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC) + timedelta(36500)
LOCAL = (x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))


@dataclass(frozen=True)
class Authority:
    """Signs certificates into files below `folder`."""

    folder: Path
    federation: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def make(cls, folder: Path, federation: str = "acme") -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"authority of {federation}")
        constraints = x509.BasicConstraints(ca=True, path_length=0)
        builder = (
            _builder(name, name, key)
            .add_extension(constraints, critical=True)
            .add_extension(_signs_certificates(), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, federation, key, builder.sign(key, hashes.SHA256()))

    def issue(self, role: Role, name: str) -> TlsFiles:
        """Return the files of a member of this authority's federation."""
        return self.issue_uri(Identity(self.federation, role, name).uri)

    def issue_uri(self, *uris: str) -> TlsFiles:
        """Return the files of a certificate that carries `uris`, and is good for this machine."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [*map(x509.UniformResourceIdentifier, uris), *LOCAL]
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            _builder(_name("member"), self.certificate.subject, key)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(signer, critical=False)
        )
        certificate = builder.sign(self.key, hashes.SHA256())
        folder = self.folder / str(certificate.serial_number)
        folder.mkdir()
        files = TlsFiles(
            authority=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem"
        )
        files.authority.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.key.write_bytes(pem)
        return files


def _signs_certificates() -> x509.KeyUsage:
    names = "content_commitment data_encipherment key_agreement encipher_only decipher_only"
    nothing_else = dict.fromkeys((*names.split(), "key_encipherment", "digital_signature"), False)
    return x509.KeyUsage(key_cert_sign=True, crl_sign=True, **nothing_else)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(BEGIN)
        .not_valid_after(END)
    )
