"""Credentials from files, and the name that a certificate carries.

Identity is the URI in the certificate's subject alternative name,
`fed://<federation>/<role>/<name>`, never the common name.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import grpc
from pydantic import BaseModel, ConfigDict

from common.errors import RequestError
from common.ids import is_name


class Role(StrEnum):
    """What the holder of a certificate may be."""

    ORCHESTRATOR = "orchestrator"
    GATEWAY = "gateway"
    ADMIN = "admin"  # who belongs to the federation
    OPERATOR = "operator"  # plans and runs
    AUDITOR = "auditor"  # reads the record, and verifies it
    VIEWER = "viewer"  # looks on


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


class CertificateFileMissing(RequestError):
    """A file of the TLS settings cannot be read."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"cannot read {path} ({why}): make development keys with `fedgate pki init` and "
            "`fedgate pki issue`, or correct the [tls] settings"
        )


class TlsFiles(BaseModel):
    """Where a process finds its own certificate and key, and the authority that it trusts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    authority: Path  # certificates of the federation's authority, PEM
    certificate: Path  # this process's own, PEM
    key: Path  # its private key, PEM

    def server_credentials(self) -> grpc.ServerCredentials:
        """Return credentials that demand a client certificate of the same authority."""
        pair = (_read(self.key), _read(self.certificate))
        return grpc.ssl_server_credentials(
            [pair], root_certificates=_read(self.authority), require_client_auth=True
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Return credentials that present this process's certificate."""
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.authority),
            private_key=_read(self.key),
            certificate_chain=_read(self.certificate),
        )


def identity_of(uri: str) -> Identity | None:
    """Return the identity that a certificate's URI names, or None if it is not one of ours."""
    parts = urlsplit(uri)
    role, _, name = parts.path.lstrip("/").partition("/")
    if parts.scheme != "fed" or role not in set(Role) or not is_name(name):
        return None
    return Identity(federation=parts.netloc, role=Role(role), name=name)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateFileMissing(path, error.strerror or str(error)) from error
