"""An orchestrator that signs its members, and whoever wants to be one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cli import pki
from cli.membership_client import MembershipClient
from common.certificates import to_pem
from common.clock import SystemClock
from common.enrolment import Token
from common.issuing import Authority, new_key
from common.joining import KeyFolder, enrol
from common.membership import Member
from common.tls import Role, TlsFiles
from orchestrator.config import Enrolment, OrchestratorConfig
from orchestrator.server import Listening, listening

FEDERATION = "acme"
HOUR = 3600.0
GATEWAY_A = Member(Role.GATEWAY, "a")
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH


class AheadClock(SystemClock):
    """The machine's clock, with a time of day that a test puts forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def wall(self) -> datetime:
        return super().wall() + self.ahead


def files_in(folder: Path) -> TlsFiles:
    """Return the three files that enrolling leaves."""
    return TlsFiles(
        authority=folder / "ca.pem", certificate=folder / "cert.pem", key=folder / "key.pem"
    )


@dataclass
class Clinic:
    """A federation whose orchestrator enrols; it can be stopped and served again."""

    folder: Path
    database: str = ""
    gateway_days: float = 7.0
    clock: AheadClock = field(default_factory=AheadClock)
    address: str = ""
    serving_now: Listening | None = None

    def __post_init__(self) -> None:
        pki.init(self.folder / "pki", FEDERATION)

    def issue(self, role: Role, name: str) -> TlsFiles:
        """Return the files of a member that was issued by hand."""
        folder = self.folder / "issued" / f"{role}-{name}"
        if not folder.exists():
            pki.issue(self.folder / "pki", role=role, name=name, out=folder)
        return files_in(folder)

    @property
    def config(self) -> OrchestratorConfig:
        below = self.folder / "pki" / "intermediate"
        return OrchestratorConfig(
            federation=FEDERATION,
            address="127.0.0.1:0",
            state=self.folder / "state",
            database=self.database,
            tls=self.issue(Role.ORCHESTRATOR, "orchestrator"),
            enrolment=Enrolment(
                address="127.0.0.1:0",
                certificate=below / "cert.pem",
                key=below / "key.pem",
                gateway_days=self.gateway_days,
            ),
            drain_s=0.2,
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Listening]:
        async with listening(self.config, clock=self.clock) as server:
            self.address, self.serving_now = server.address, server
            yield server

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[MembershipClient]:
        async with MembershipClient(self.address, self.issue(Role.ADMIN, "ada")) as client:
            yield client

    async def token(self, member: Member = GATEWAY_A, lifetime_s: float = HOUR) -> Token:
        """Return a new token for a member."""
        async with self.admin() as admin:
            text, _ = await admin.create_token(member, lifetime_s)
        return Token.from_text(text)

    async def enrolled(self, name: str, role: Role = Role.GATEWAY) -> TlsFiles:
        """Return the files of a member that has enrolled by a token."""
        count = len(list(self.folder.glob(f"enrolled-{name}-*")))
        folder = self.folder / f"enrolled-{name}-{count}"
        await enrol(await self.token(Member(role, name)), KeyFolder(folder))
        return files_in(folder)

    def forged(
        self,
        uris: Sequence[str] = ("fed://acme/gateway/a",),
        *,
        signer: Authority | None = None,
        usage: x509.ObjectIdentifier = CLIENT,
        days: tuple[float, float] = (-1.0, 1.0),
        weak: bool = False,
    ) -> TlsFiles:
        """Return a certificate that the authority should not have signed, or did not."""
        signer = signer or pki.read_authority(self.folder / "pki")
        key = rsa.generate_private_key(65537, 2048) if weak else new_key()
        return self._files(key, _certificate(signer, key, uris, usage, days), signer)

    def self_signed(self) -> TlsFiles:
        """Return a certificate that no authority has signed."""
        key = new_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a")])
        itself = _certificate(None, key, ["fed://acme/gateway/a"], CLIENT, (-1.0, 1.0), name)
        return self._files(key, itself, None)

    def _files(
        self,
        key: EllipticCurvePrivateKey | rsa.RSAPrivateKey,
        certificate: x509.Certificate,
        signer: Authority | None,
    ) -> TlsFiles:
        folder = self.folder / "forged" / str(certificate.serial_number)
        folder.mkdir(parents=True)
        files = files_in(folder)
        files.authority.write_bytes((self.folder / "pki" / "ca.pem").read_bytes())
        chain = [certificate, *([signer.certificate] if signer else [])]
        files.certificate.write_bytes(to_pem(chain))
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        files.key.write_bytes(pem)
        return files


def _certificate(
    signer: Authority | None,
    key: EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    uris: Sequence[str],
    usage: x509.ObjectIdentifier,
    days: tuple[float, float],
    subject: x509.Name = x509.Name([]),  # noqa: B008 - a constant
) -> x509.Certificate:
    now = datetime.now(UTC)  # noqa: TID251 - of a certificate that gRPC compares with it
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName(names), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(signer.key if signer else key, hashes.SHA256())
    )


def without_certificate(files: TlsFiles) -> grpc.ChannelCredentials:
    """Return what a caller has that trusts the federation, and has nothing to show."""
    return grpc.ssl_channel_credentials(files.authority.read_bytes())
