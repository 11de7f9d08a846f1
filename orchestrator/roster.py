"""Who belongs to the federation: certificates that were signed, tokens to come, revocations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import structlog
from sqlalchemy import and_, delete, insert, select

from common.audit import Action, Entry
from common.errors import UnavailableError
from common.ids import is_digest
from common.membership import IssuedCertificate, Member, OpenToken, Revocation, Roll
from common.tls import Identity, Role
from orchestrator.callers import Denied
from orchestrator.database import CERTIFICATES, ENROLMENT_TOKENS, REVOCATIONS

if TYPE_CHECKING:
    from typing import NoReturn

    from sqlalchemy import Connection, Row

    from common.audit import Facts
    from common.certificates import Certificate
    from common.clock import Clock
    from orchestrator.audit_log import AuditLog
    from orchestrator.callers import Callers
    from orchestrator.fencing import Fence

LOOK_S = 5.0  # between two looks at the tables, for what others wrote
KEPT_OF_ONE = 16  # certificates of a member that are listed: whoever renews for ever fills nothing
KEPT = timedelta(days=30)  # that a certificate is listed after its end

log = structlog.get_logger()


class Roster:
    """The tables of members, and the word to `callers` on whom to turn away."""

    def __init__(self, fence: Fence, clock: Clock, callers: Callers, audit: AuditLog) -> None:
        """Write behind `fence`, on record in `audit`; nothing is read yet."""
        self._fence = fence
        self._audit = audit
        self._clock = clock
        self._callers = callers

    def refresh(self) -> int:
        """Tell `callers` whom to turn away; return how many calls that ended."""
        with self._fence.reading() as connection:
            denied = _denied(connection)
        return self._callers.deny(denied)

    async def keep_looking(self) -> NoReturn:
        """Refresh for ever: what was written elsewhere, and certificates that end, count soon."""
        while True:
            await self._clock.sleep_until(self._clock.now() + LOOK_S)
            try:
                self.refresh()
            except UnavailableError as error:  # whom to turn away is known from before
                log.warning("revocations_not_read", why=str(error))

    def roll(self) -> Roll:
        """Return all that is known of members."""
        with self._fence.reading() as connection:
            denied = _denied(connection)
            issued = sorted(
                (_issued(row, denied) for row in connection.execute(select(CERTIFICATES))),
                key=lambda each: (str(each.member), -each.ends.timestamp()),
            )
            unused = select(ENROLMENT_TOKENS).where(ENROLMENT_TOKENS.c.used_for.is_(None))
            rows = connection.execute(unused.order_by(ENROLMENT_TOKENS.c.expires)).all()
            tokens = [OpenToken(_member(row), row.created_by, as_utc(row.expires)) for row in rows]
            ordered = select(REVOCATIONS).order_by(REVOCATIONS.c.revoked_at)
            revocations = [_revocation(row) for row in connection.execute(ordered)]
        valid = tuple(each for each in tokens if each.expires > self._clock.wall())
        return Roll(tuple(issued), valid, tuple(revocations))

    def revoke(self, whom: Member | str, by: str) -> int:
        """Turn away a member, or one certificate by its fingerprint; return how many calls end.

        Of a member all certificates until now are refused, whoever signed them, and its tokens are
        worth nothing; a certificate that is signed here later is taken.
        """
        now = self._clock.wall()
        with self._fence.writing() as connection:
            subjects = [str(whom)]
            if isinstance(whom, Member):  # of whom there are KEPT_OF_ONE at most
                ours = select(CERTIFICATES.c.fingerprint).where(_of(CERTIFICATES, whom))
                subjects += connection.execute(ours).scalars()
                unused = and_(_of(ENROLMENT_TOKENS, whom), ENROLMENT_TOKENS.c.used_for.is_(None))
                connection.execute(delete(ENROLMENT_TOKENS).where(unused))
            connection.execute(delete(REVOCATIONS).where(REVOCATIONS.c.subject.in_(subjects)))
            rows = [{"subject": each, "revoked_by": by, "revoked_at": now} for each in subjects]
            connection.execute(insert(REVOCATIONS), rows)
            self.put_on_record(connection, Action.REVOKE, by, {"whom": str(whom)})
        ended = self.refresh()
        log.warning("revoked", whom=str(whom), by=by, ended_calls=ended)
        return ended

    def put_on_record(
        self, connection: Connection, action: Action, admin: str, facts: Facts
    ) -> None:
        """Have the audit log say what an admin did, in the transaction that does it."""
        who = Identity(self._audit.federation, Role.ADMIN, admin)
        self._audit.append(connection, Entry(who.uri, action, facts))

    def note(
        self, connection: Connection, certificate: Certificate, action: Action, actor: str
    ) -> None:
        """Keep a certificate that was signed here and put it on record; forget those long ended.

        `actor` is the URI of who asked for it.
        """
        facts: Facts = {
            "member": certificate.identity.uri,
            "certificate": certificate.fingerprint,
        }
        self._audit.append(connection, Entry(actor, action, facts))
        long_ago = CERTIFICATES.c.ends < self._clock.wall() - KEPT
        gone = select(CERTIFICATES.c.fingerprint).where(long_ago)
        connection.execute(delete(REVOCATIONS).where(REVOCATIONS.c.subject.in_(gone)))
        connection.execute(delete(CERTIFICATES).where(long_ago))
        row = {"role": certificate.identity.role, "name": certificate.identity.name}
        row |= {"fingerprint": certificate.fingerprint}
        times = {"begins": certificate.begins, "ends": certificate.ends}
        connection.execute(insert(CERTIFICATES).values(**row, **times))
        member = Member(certificate.identity.role, certificate.identity.name)
        newest = select(CERTIFICATES.c.fingerprint).where(_of(CERTIFICATES, member))
        ordered = newest.order_by(CERTIFICATES.c.ends.desc(), CERTIFICATES.c.begins.desc())
        surplus = connection.execute(ordered.offset(KEPT_OF_ONE)).scalars().all()
        connection.execute(delete(CERTIFICATES).where(CERTIFICATES.c.fingerprint.in_(surplus)))


def _denied(connection: Connection) -> Denied:
    subjects = set(connection.execute(select(REVOCATIONS.c.subject)).scalars())
    fingerprints = frozenset(filter(is_digest, subjects))
    members = frozenset(map(_named, subjects - fingerprints))
    readmitted = {
        row.fingerprint
        for member in members
        for row in connection.execute(select(CERTIFICATES).where(_of(CERTIFICATES, member)))
    }
    return Denied(members, fingerprints, frozenset(readmitted))


def _of(table: Any, member: Member) -> Any:
    return and_(table.c.role == member.role, table.c.name == member.name)


def _named(subject: str) -> Member:
    role, _, name = subject.partition("/")
    return Member(Role(role), name)


def _member(row: Row[Any]) -> Member:
    return Member(Role(row.role), row.name)


def _issued(row: Row[Any], denied: Denied) -> IssuedCertificate:
    revoked = row.fingerprint in denied.fingerprints
    times = as_utc(row.begins), as_utc(row.ends)
    return IssuedCertificate(_member(row), row.fingerprint, *times, revoked)


def _revocation(row: Row[Any]) -> Revocation:
    made = Revocation(row.revoked_by, as_utc(row.revoked_at))
    if is_digest(row.subject):
        return replace(made, fingerprint=row.subject)
    return replace(made, member=_named(row.subject))


def as_utc(read: datetime) -> datetime:
    """Return a time as it was written: SQLite forgets of which zone it is."""
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)
