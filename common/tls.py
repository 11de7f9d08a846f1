"""Credentials from files, and the name that a certificate carries.

Identity is the URI in the certificate's subject alternative name,
`fed://<federation>/<role>/<name>`, never the common name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast
from urllib.parse import urlsplit

import grpc
import structlog
from pydantic import BaseModel, ConfigDict

from common.errors import FederationError, UnavailableError
from common.ids import is_name
from common.key_files import CertificateFileMissing, read_file, read_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

log = structlog.get_logger()


class Role(StrEnum):
    """What the holder of a certificate may be."""

    ORCHESTRATOR = "orchestrator"
    GATEWAY = "gateway"
    ADMIN = "admin"  # who belongs to the federation
    OPERATOR = "operator"  # plans and runs
    AUDITOR = "auditor"  # reads the record, and verifies it
    VIEWER = "viewer"  # looks on


PEOPLE = frozenset({Role.ADMIN, Role.OPERATOR, Role.AUDITOR, Role.VIEWER})  # may sign in by token
LONGEST_TOKEN = 7168  # bytes; with more, gRPC refuses some calls for their metadata


@dataclass(frozen=True)
class Identity:
    """Who a certificate says its holder is."""

    federation: str
    role: Role
    name: str

    @property
    def uri(self) -> str:
        """The name as it stands in the certificate."""
        return f"fed://{self.federation}/{self.role}/{self.name}"


class CertificateOutOfDate(UnavailableError):
    """A process's own certificate is over, or has not begun, by the clock of its machine."""

    field = "tls.certificate"

    def __init__(self, path: Path, *, begins: datetime, ends: datetime, now: datetime) -> None:
        when = f"was good until {ends:%Y-%m-%d %H:%M}"
        if now < begins:
            when = f"is good from {begins:%Y-%m-%d %H:%M} on"
        super().__init__(
            f"the certificate in {path} {when} UTC, and this machine's clock says "
            f"{now:%Y-%m-%d %H:%M}: set the clock right if it is wrong, else enrol anew with a "
            "token"
        )


class Credentials(Protocol):
    """What lets a client prove who it is."""

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that say who is calling."""

    def check_in_force(self, now: datetime) -> None:
        """Raise CertificateOutOfDate if the credentials have a certificate that is."""


class TlsFiles(BaseModel):
    """Where a process finds its own certificate and key, and the authority that it trusts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authority: Path  # certificates of the federation's authority, PEM
    certificate: Path  # this process's own, PEM
    key: Path  # its private key, PEM

    def stamp(self) -> tuple[tuple[int, int, int], ...]:
        """Return what changes with the files; raise CertificateFileMissing."""
        return tuple(_stamp(path) for path in (self.authority, self.certificate, self.key))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate of the same authority.

        When the files change, connections made from then on see the newer ones.
        """
        return swapping_credentials(self, self._of_server, demand_certificate=True)

    def open_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand no client certificate, and show the authority's as well.

        Whoever knows the authority's fingerprint, and nothing else yet, can tell that it is this.
        """
        return swapping_credentials(self, self._of_open_server, demand_certificate=False)

    def people_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that ask no client for a certificate: its token says who it is."""
        return swapping_credentials(self, self._of_peoples_server, demand_certificate=False)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that present this process's certificate."""
        chain, key = read_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(
            root_certificates=read_file(self.authority), private_key=key, certificate_chain=chain
        )

    def check_in_force(self, now: datetime) -> None:
        """Raise CertificateOutOfDate, or what `common.renewing.present` does."""
        from common.renewing import present  # noqa: PLC0415 - reading certificates takes memory

        found = present(self)
        if not found.begins <= now <= found.ends:
            path = self.certificate
            raise CertificateOutOfDate(path, begins=found.begins, ends=found.ends, now=now)

    def _of_server(self) -> grpc.ServerCertificateConfiguration:
        chain, key = read_pair(self.certificate, self.key)
        root = read_file(self.authority)
        return grpc.ssl_server_certificate_configuration([(key, chain)], root_certificates=root)

    def _of_peoples_server(self) -> grpc.ServerCertificateConfiguration:
        chain, key = read_pair(self.certificate, self.key)
        return grpc.ssl_server_certificate_configuration([(key, chain)])

    def _of_open_server(self) -> grpc.ServerCertificateConfiguration:
        chain, key = read_pair(self.certificate, self.key)
        shown = chain.rstrip() + b"\n" + read_file(self.authority)
        return grpc.ssl_server_certificate_configuration([(key, shown)])


def swapping_credentials(
    files: TlsFiles,
    read: Callable[[], grpc.ServerCertificateConfiguration],
    *,
    demand_certificate: bool,
) -> grpc.ServerCredentials:
    """Return what `read` makes of the files, made again at the next handshake after they changed.

    Files that do not fit together, as while they are being replaced, change nothing.
    """
    known = files.stamp()

    def newer() -> grpc.ServerCertificateConfiguration | None:  # in a thread of gRPC's
        nonlocal known
        try:
            if (stamp := files.stamp()) == known:
                return None
            made = read()
        except FederationError as error:
            log.warning("certificate_not_swapped", why=str(error))
            return None
        known = stamp
        log.info("certificate_swapped", certificate=str(files.certificate))
        return made

    # types-grpcio has the fetcher return a configuration always; None means no change
    fetcher = cast("Callable[[], grpc.ServerCertificateConfiguration]", newer)
    return grpc.dynamic_ssl_server_credentials(read(), fetcher, demand_certificate)


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise CertificateFileMissing(path, error.strerror or str(error)) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def identity_of(uri: str) -> Identity | None:
    """Return the identity that a certificate's URI names, or None if it is not one of ours."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # a host in brackets that is no address
        return None
    role, _, name = parts.path.lstrip("/").partition("/")
    if parts.scheme != "fed" or role not in set(Role) or not is_name(name):
        return None
    return Identity(federation=parts.netloc, role=Role(role), name=name)
