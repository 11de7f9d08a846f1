"""Whose calls are answered: looked at when a call begins, and for as long as it goes on.

A certificate that was revoked, or has ended, begins no call; a call of it that is under way ends
as soon as that is known here. What reads certificates takes 10 MiB of memory: the first call loads
it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import RequestError
from common.membership import Member

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from common.certificates import Certificate
    from common.clock import Clock
    from common.tls import Identity, Role


class Unauthenticated(RequestError):
    """The connection does not say who is calling."""


class CertificateUnfit(Unauthenticated):
    """The client certificate is not one that is taken, whoever has signed it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the client certificate is refused: {why}")


class CertificateRevoked(Unauthenticated):
    """The caller was turned away."""

    def __init__(self, certificate: Certificate) -> None:
        super().__init__(
            f"the certificate of {certificate.identity.uri} was revoked: an admin of the "
            "federation can make a token to enrol with again"
        )


class PersonRevoked(Unauthenticated):
    """Somebody who signs in with a token was turned away."""

    def __init__(self, who: Identity) -> None:
        super().__init__(
            f"{who.uri} was revoked: an admin of the federation can say why, and whether a "
            "certificate can be had again"
        )


class CertificateEnded(Unauthenticated):
    """The caller's certificate was valid when it connected, and is no longer."""

    def __init__(self, ended: datetime) -> None:
        super().__init__(
            f"the client certificate ended at {ended:%Y-%m-%d %H:%M} UTC: enrol again with a token"
        )


@dataclass(frozen=True)
class Denied:
    """Who is turned away."""

    members: frozenset[Member] = frozenset()  # but for `readmitted`
    fingerprints: frozenset[str] = frozenset()
    readmitted: frozenset[str] = frozenset()  # certificates of `members` that were signed since

    @property
    def names(self) -> frozenset[tuple[str, str]]:
        """Roles and names of members, for those who have no certificate."""
        return frozenset((str(member.role), member.name) for member in self.members)

    def __contains__(self, certificate: Certificate) -> bool:
        found = certificate.fingerprint
        if found in self.fingerprints:
            return True
        member = Member(certificate.identity.role, certificate.identity.name)
        return member in self.members and found not in self.readmitted


class OpenCall:
    """A call under way, that can be ended with a refusal from elsewhere on the loop."""

    def __init__(
        self,
        caller: Identity | None = None,
        certificate: Certificate | None = None,
        still: Callable[[], None] = lambda: None,
        roles: frozenset[Role] = frozenset(),
    ) -> None:
        """Begin a call of `caller`, by `certificate`; `still` raises once it may not go on."""
        self.caller = caller  # None: somebody who has no name yet
        self.roles = roles  # all that the caller has, where there are more than one
        self.certificate = certificate
        self.still = still
        self.limit = asyncio.timeout(None)
        self.refusal: Unauthenticated | None = None
        self._is_outside = False

    def end(self, refusal: Unauthenticated) -> None:
        """Let the call end with `refusal`; its handler is cancelled where it waits."""
        if self.refusal is None:
            self.refusal = refusal
            if not self._is_outside:
                self.limit.reschedule(asyncio.get_running_loop().time())

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Leave the handler inside the block, while a message is sent; raise its refusal."""
        if self.refusal is not None:
            raise self.refusal
        self.still()
        self._is_outside = True
        yield
        self._is_outside = False
        if self.refusal is not None:
            raise self.refusal


class Callers:
    """Whose calls go on now."""

    def __init__(self, clock: Clock) -> None:
        """Begin with nobody turned away."""
        self._clock = clock
        self._denied = Denied()
        self._open: set[OpenCall] = set()

    def deny(self, denied: Denied) -> int:
        """Turn `denied` away from now on; return how many calls that ends.

        Calls of certificates and tokens that have ended meanwhile end too.
        """
        self._denied = denied
        ended = 0
        for call in tuple(self._open):
            if (refusal := self._refusal(call)) is not None and call.refusal is None:
                call.end(refusal)
                ended += 1
        return ended

    @asynccontextmanager
    async def person(
        self, caller: Identity, still: Callable[[], None], roles: frozenset[Role] = frozenset()
    ) -> AsyncIterator[OpenCall]:
        """Lend the call of somebody without a certificate, until `still` raises, or revoked.

        Raises:
            PersonRevoked: the name was turned away, in the role that is called in.
        """
        async with self._lent(OpenCall(caller, still=still, roles=roles)) as call:
            yield call

    @asynccontextmanager
    async def again(self, first: OpenCall, caller: Identity) -> AsyncIterator[OpenCall]:
        """Lend another call of whoever made `first`, who calls as `caller` now.

        Raises what `call` or `person` raises, whichever the first was.
        """
        async with self._lent(OpenCall(caller, first.certificate, first.still)) as call:
            yield call

    def certificate(self, connection: Mapping[str, Iterable[bytes]]) -> Certificate:
        """Return the certificate behind a connection, if calls of it are answered.

        Raises:
            CertificateUnfit: it cannot be read, names nobody or several, or has a weak key.
            CertificateRevoked, CertificateEnded: they are not.
        """
        from common.certificates import CertificateRefused, member_certificate  # noqa: PLC0415

        pem = b"".join(connection.get("x509_pem_cert", ()))
        try:
            found = member_certificate(pem)
        except CertificateRefused as error:
            raise CertificateUnfit(str(error)) from error
        if (refusal := self._refusal_of(found)) is not None:
            raise refusal
        return found

    @asynccontextmanager
    async def call(
        self, connection: Mapping[str, Iterable[bytes]], caller: Identity
    ) -> AsyncIterator[OpenCall]:
        """Lend a call that goes on for as long as its caller is welcome.

        Raises:
            CertificateUnfit, CertificateRevoked, CertificateEnded: the caller is not, or no longer.
        """
        async with self._lent(OpenCall(caller, self.certificate(connection))) as call:
            yield call

    @asynccontextmanager
    async def _lent(self, call: OpenCall) -> AsyncIterator[OpenCall]:
        if (refusal := self._refusal(call)) is not None:
            raise refusal
        self._open.add(call)
        try:
            async with call.limit:
                yield call
        except TimeoutError:
            if call.refusal is None:
                raise
            raise call.refusal from None
        finally:
            self._open.discard(call)

    def _refusal(self, call: OpenCall) -> Unauthenticated | None:
        if call.certificate is not None:
            return self._refusal_of(call.certificate)
        who = call.caller
        if who is not None and (str(who.role), who.name) in self._denied.names:
            return PersonRevoked(who)
        try:
            call.still()
        except Unauthenticated as refusal:
            return refusal
        return None

    def _refusal_of(self, certificate: Certificate) -> Unauthenticated | None:
        if certificate in self._denied:
            return CertificateRevoked(certificate)
        if certificate.ends < self._clock.wall():
            return CertificateEnded(certificate.ends)
        return None
