"""MembershipService and renewal over gRPC: what an admin, or any person, asks about members."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING

from common.channel import CALL_TIMEOUT_S, Client
from common.membership import MEMBER, ROLL, TOKEN_WISH, Member, TokenWish
from protos.federation.v1 import enrolment_pb2 as pb
from protos.federation.v1.enrolment_pb2_grpc import EnrolmentServiceStub, MembershipServiceStub

if TYPE_CHECKING:
    from datetime import datetime

    import grpc.aio

    from common.membership import Roll


class MembershipClient(Client):
    """A person's channel to an orchestrator, about members."""

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._stub = MembershipServiceStub(channel)
        self._enrolment = EnrolmentServiceStub(channel)

    async def create_token(self, member: Member, lifetime_s: float) -> tuple[str, datetime]:
        """Return a token for a new member, and when it expires."""
        request = TOKEN_WISH.to_message(TokenWish(member, lifetime_s))
        with self._our_errors():
            response = await self._stub.CreateToken(request, timeout=CALL_TIMEOUT_S)
        return response.token, response.expires.ToDatetime(UTC)

    async def certify(self, member: Member, request: bytes) -> bytes:
        """Return the chain with its root, PEM, for a signing request, DER."""
        message = pb.CertifyRequest(member=MEMBER.to_message(member), request=request)
        with self._our_errors():
            response = await self._stub.Certify(message, timeout=CALL_TIMEOUT_S)
        return response.chain

    async def roll(self) -> Roll:
        """Return all that is known of members."""
        with self._our_errors():
            response = await self._stub.ListMembers(pb.ListMembersRequest(), timeout=CALL_TIMEOUT_S)
        return ROLL.from_message(response)

    async def revoke(self, whom: Member | str) -> int:
        """Turn away a member, or one certificate by its fingerprint; return how many calls end."""
        if isinstance(whom, Member):
            request = pb.RevokeRequest(member=MEMBER.to_message(whom))
        else:
            request = pb.RevokeRequest(fingerprint=whom)
        with self._our_errors():
            response = await self._stub.Revoke(request, timeout=CALL_TIMEOUT_S)
        return response.ended_calls

    async def renew(self, request: bytes) -> bytes:
        """Return the chain, PEM, for a signing request of whoever calls, DER."""
        with self._our_errors():
            response = await self._enrolment.Renew(
                pb.RenewRequest(request=request), timeout=CALL_TIMEOUT_S
            )
        return response.chain
