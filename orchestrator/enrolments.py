"""Certificates for members: who gets one for a token, by an admin's word, or for a next key."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from sqlalchemy import delete, insert, select, update

from common.audit import Action
from common.certificates import (
    certificate_of,
    check_chain,
    fingerprint,
    key_digest,
    read_chain,
    to_pem,
)
from common.enrolment import SECRET_BYTES, Token, read_request
from common.errors import ConflictError, PermissionRefused, RequestError
from common.issuing import Authority, Period, certify, federation_of
from common.key_files import read_file, read_pair
from common.membership import Member
from common.tls import Identity, Role
from orchestrator.callers import Unauthenticated
from orchestrator.database import ENROLMENT_TOKENS
from orchestrator.roster import as_utc

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from common.clock import Clock
    from common.enrolment import SigningRequest
    from common.membership import TokenWish
    from orchestrator.config import OrchestratorConfig
    from orchestrator.fencing import Fence
    from orchestrator.roster import Roster

REMEMBERED = timedelta(days=1)  # that a token is told from one that never was, after its end

log = structlog.get_logger()


class NoEnrolment(ConflictError):
    """This orchestrator has no authority to sign with."""

    def __init__(self) -> None:
        super().__init__(
            "this orchestrator signs no certificates: its settings have no table [enrolment]"
        )


class NotTheAuthority(RequestError):
    """The settings name no intermediate authority of this federation."""

    field = "enrolment"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"[enrolment] names no intermediate authority of this federation ({why}): `fedgate pki "
            "init` makes one, and its root's ca.pem is the [tls] authority"
        )


class RoleNotEnrolled(RequestError):
    """A token or certificate is asked for, for a role that does not enrol."""

    field = "role"

    def __init__(self) -> None:
        super().__init__(
            "an orchestrator does not enrol: its certificate names hosts, make it with `fedgate "
            "pki issue --role orchestrator --host`"
        )


class TokenRefused(Unauthenticated):
    """A token is worth nothing here."""


class TokenUnknown(TokenRefused):
    """No such token was made here."""

    def __init__(self) -> None:
        super().__init__(
            "this orchestrator knows no such token: it was made elsewhere, withdrawn, or expired "
            "long ago; ask an admin for another"
        )


class TokenExpired(TokenRefused):
    """A token came too late."""

    def __init__(self, expired: datetime) -> None:
        super().__init__(
            f"the token expired at {expired:%Y-%m-%d %H:%M} UTC: ask an admin for another"
        )


class TokenUsed(TokenRefused):
    """A token was used before, for another key."""

    def __init__(self) -> None:
        super().__init__(
            "the token has been used for another key: if that was not you, tell an admin, who can "
            "revoke the certificate that it was used for"
        )


class AnotherName(PermissionRefused):
    """A request names somebody else than the one it may."""

    def __init__(self, *, got: Identity, need: Identity) -> None:
        super().__init__(
            f"the signing request is for {got.uri}, it may be for {need.uri} alone: a name cannot "
            "be chosen while enrolling"
        )


@dataclass(frozen=True)
class Signer:
    """The intermediate authority, and the root that everybody trusts."""

    authority: Authority
    root: x509.Certificate

    @classmethod
    def read(cls, config: OrchestratorConfig) -> Signer:
        """Return what the settings name, as it is on the disk now.

        Raises:
            NoEnrolment: they name none.
            CertificateFileMissing, KeyDoesNotFit, NotTheAuthority: it is of no use.
        """
        if (enrolment := config.enrolment) is None:
            raise NoEnrolment
        pem, secret = read_pair(enrolment.certificate, enrolment.key)
        certificate = read_chain(pem)[0]
        key = load_pem_private_key(secret, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise NotTheAuthority("its key is not on an elliptic curve")
        if federation_of(certificate) != config.federation:
            raise NotTheAuthority(f"it is of the federation {federation_of(certificate)!r}")
        root = read_chain(read_file(config.tls.authority))[0]
        try:
            check_chain([certificate], root)
        except RequestError as error:
            raise NotTheAuthority(str(error)) from error
        return cls(Authority(certificate, key), root)

    def chain(self, request: SigningRequest, period: Period) -> list[x509.Certificate]:
        """Return a certificate for who asks, and the authority's."""
        leaf = certify(self.authority, request.key, request.identity, period)
        return [leaf, self.authority.certificate]


class Enrolments:
    """What this orchestrator signs; every signature is on record before it is handed out."""

    def __init__(
        self, config: OrchestratorConfig, fence: Fence, clock: Clock, roster: Roster
    ) -> None:
        """Sign with what the settings name, read again each time."""
        self._config = config
        self._fence = fence
        self._clock = clock
        self._roster = roster
        self.address = ""  # where members enrol, once it is served

    def refuse_unfit(self) -> None:
        """Raise what `Signer.read` does unless the settings name an authority of use."""
        Signer.read(self._config)

    def create_token(self, wish: TokenWish, by: str) -> tuple[str, datetime]:
        """Return a new token for a member, and when it expires; only its hash is kept.

        Raises:
            NoEnrolment: nothing is signed here.
            RoleNotEnrolled: it is for an orchestrator.
        """
        signer, identity = Signer.read(self._config), self._identity(wish.member)
        secret, now = secrets.token_bytes(SECRET_BYTES), self._clock.wall()
        expires = now + timedelta(seconds=wish.lifetime_s)
        row = {"secret_hash": _hash(secret), "created_by": by, "expires": expires}
        who = {"role": wish.member.role, "name": wish.member.name}
        with self._fence.writing() as connection:
            old = ENROLMENT_TOKENS.c.expires < now - REMEMBERED
            connection.execute(delete(ENROLMENT_TOKENS).where(old))
            connection.execute(insert(ENROLMENT_TOKENS).values(**row, **who))
            facts = {"member": identity.uri}
            self._roster.put_on_record(connection, Action.CREATE_TOKEN, by, facts)
        log.info("token_created", member=str(wish.member), by=by)
        token = Token(secret, fingerprint(signer.root), self.address, identity)
        return token.text(), expires

    def check(self, secret: bytes, der: bytes) -> SigningRequest:
        """Return a request that its token allows, as things stand; nothing is used up.

        Raises:
            RequestMalformed, IdentityUnclear, WeakKey: it is not a request.
            TokenUnknown, TokenExpired, TokenUsed: the token is worth nothing, or nothing more.
            AnotherName: it is for somebody else.
        """
        with self._fence.reading() as connection:
            _row(connection, secret)  # whoever has no token has nothing read
            request = read_request(der)
            self._token(connection, secret, request)
        return request

    def enrol(self, secret: bytes, der: bytes) -> bytes:
        """Return the chain for a token's holder, PEM; the token is used up by then.

        The holder of the same key gets the same chain again, until the token expires: its first
        answer may have been lost. Raises what `check` does.
        """
        request = read_request(der)
        signer = Signer.read(self._config)
        with self._fence.writing() as connection:
            row = self._token(connection, secret, request)
            if row.chain is not None:
                return bytes(row.chain)
            chain = self._signed(connection, signer, request, Action.ENROL, request.identity)
            used = {"used_for": key_digest(request.key), "chain": chain}
            ours = ENROLMENT_TOKENS.c.secret_hash == _hash(secret)
            connection.execute(update(ENROLMENT_TOKENS).where(ours).values(**used))
        self._roster.refresh()
        log.info("enrolled", member=request.identity.uri)
        return chain

    def certify(self, member: Member, der: bytes, by: str) -> bytes:
        """Return the chain and the root for a request that an admin brings, PEM.

        Raises:
            NoEnrolment, RoleNotEnrolled, AnotherName: it may not be signed here.
        """
        signer = Signer.read(self._config)
        admin = Identity(self._config.federation, Role.ADMIN, by)
        chain = self._sign(signer, der, self._identity(member), Action.CERTIFY, admin)
        log.info("certified", member=str(member), by=by)
        return chain + to_pem([signer.root])

    def renew(self, caller: Identity, der: bytes) -> bytes:
        """Return the chain for a caller's next key, PEM; raise AnotherName, NoEnrolment."""
        chain = self._sign(Signer.read(self._config), der, caller, Action.RENEW, caller)
        log.info("renewed", member=caller.uri)
        return chain

    def _sign(
        self, signer: Signer, der: bytes, need: Identity, action: Action, actor: Identity
    ) -> bytes:
        request = read_request(der)
        _refuse_another(request, need)
        with self._fence.writing() as connection:
            chain = self._signed(connection, signer, request, action, actor)
        self._roster.refresh()
        return chain

    def _signed(
        self,
        connection: Connection,
        signer: Signer,
        request: SigningRequest,
        action: Action,
        actor: Identity,
    ) -> bytes:
        role, enrolment = request.identity.role, self._config.enrolment
        if enrolment is None:
            raise NoEnrolment
        if role is Role.ORCHESTRATOR:
            raise RoleNotEnrolled
        chain = signer.chain(request, Period(self._clock.wall(), enrolment.lifetime(role)))
        self._roster.note(connection, certificate_of(chain[0]), action, actor.uri)
        return to_pem(chain)

    def _token(self, connection: Connection, secret: bytes, request: SigningRequest) -> Row[Any]:
        row = _row(connection, secret)
        expires = as_utc(row.expires)
        if expires <= self._clock.wall():
            raise TokenExpired(expires)
        _refuse_another(request, Identity(self._config.federation, Role(row.role), row.name))
        if row.used_for not in {None, key_digest(request.key)}:
            raise TokenUsed
        return row

    def _identity(self, member: Member) -> Identity:
        if member.role is Role.ORCHESTRATOR:
            raise RoleNotEnrolled
        return Identity(self._config.federation, member.role, member.name)


def _refuse_another(request: SigningRequest, need: Identity) -> None:
    if request.identity != need:
        raise AnotherName(got=request.identity, need=need)


def _row(connection: Connection, secret: bytes) -> Row[Any]:
    ours = ENROLMENT_TOKENS.c.secret_hash == _hash(secret)
    row = connection.execute(select(ENROLMENT_TOKENS).where(ours)).one_or_none()
    if row is None:
        raise TokenUnknown
    return row


def _hash(secret: bytes) -> str:
    return sha256(secret).hexdigest()
