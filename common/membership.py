"""Who belongs to a federation, as an admin is told and says it; messages of enrolment.proto."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from common.ids import DIGEST_PATTERN, NAME_PATTERN, is_digest
from common.tls import Role
from common.wire_values import Bridge, InvalidMessage
from protos.federation.v1 import enrolment_pb2 as pb

LONGEST_TOKEN_S = 86400.0

Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Fingerprint = Annotated[str, StringConstraints(pattern=DIGEST_PATTERN)]


@dataclass(frozen=True)
class Member:
    """One member, whatever certificates it has."""

    role: Role
    name: Name

    def __str__(self) -> str:
        """As people and tables have it."""
        return f"{self.role}/{self.name}"


@dataclass(frozen=True)
class IssuedCertificate:
    """A certificate that this orchestrator has signed."""

    member: Member
    fingerprint: Fingerprint
    begins: datetime
    ends: datetime
    revoked: bool = False


@dataclass(frozen=True)
class OpenToken:
    """A token that can still be used."""

    member: Member
    created_by: str
    expires: datetime


@dataclass(frozen=True)
class Revocation:
    """A member that was turned away, or one certificate."""

    revoked_by: str
    revoked_at: datetime
    member: Member | None = None
    fingerprint: Fingerprint | None = None

    @property
    def subject(self) -> str:
        """What was revoked, for people."""
        return str(self.member) if self.member is not None else str(self.fingerprint)


@dataclass(frozen=True)
class Roll:
    """All that is known of a federation's members."""

    certificates: tuple[IssuedCertificate, ...]
    tokens: tuple[OpenToken, ...]
    revocations: tuple[Revocation, ...]


@dataclass(frozen=True)
class TokenWish:
    """The token that an admin wants."""

    member: Member
    lifetime_s: Annotated[float, Field(gt=0, le=LONGEST_TOKEN_S)]


MEMBER = Bridge(Member, pb.Member)
ROLL = Bridge(Roll, pb.ListMembersResponse)
TOKEN_WISH = Bridge(TokenWish, pb.CreateTokenRequest)


def to_revoke(request: pb.RevokeRequest) -> Member | Fingerprint:
    """Return what a request revokes; raise InvalidMessage."""
    match request.WhichOneof("revoked"):
        case "member":
            return MEMBER.from_message(request.member)
        case "fingerprint" if is_digest(request.fingerprint):
            return request.fingerprint
        case _:
            problem = "name a member, or a certificate's fingerprint: 64 hexadecimal digits"
            raise InvalidMessage("RevokeRequest", field="revoked", problem=problem)
