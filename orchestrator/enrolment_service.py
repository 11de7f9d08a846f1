"""EnrolmentService and MembershipService: parse, ask, reply."""
# ruff: noqa: ARG002 - the signatures are gRPC's; who calls was found out before

from __future__ import annotations

from typing import TYPE_CHECKING

from common.audit import Action
from common.membership import MEMBER, ROLL, TOKEN_WISH, to_revoke
from orchestrator.auth import calling, presented
from protos.federation.v1 import enrolment_pb2 as pb
from protos.federation.v1.enrolment_pb2_grpc import (
    EnrolmentServiceServicer,
    MembershipServiceServicer,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.auth import Context
    from orchestrator.enrolments import Enrolments
    from orchestrator.refusals import Refusals
    from orchestrator.roster import Roster


class EnrolmentService(EnrolmentServiceServicer):
    """How members come by certificates; which of the two calls is answered, its door decides."""

    def __init__(self, enrolments: Callable[[], Enrolments], refused: Refusals) -> None:
        self._enrolments = enrolments
        self._refused = refused

    async def Enrol(self, request: pb.EnrolRequest, context: Context) -> pb.EnrolResponse:
        with self._refused.noted(presented(context.auth_context()), Action.ENROL, {}):
            chain = self._enrolments().enrol(request.secret, request.request)
        return pb.EnrolResponse(chain=chain)

    async def Renew(self, request: pb.RenewRequest, context: Context) -> pb.RenewResponse:
        with self._refused.noted(calling().uri, Action.RENEW, {}):
            chain = self._enrolments().renew(calling(), request.request)
        return pb.RenewResponse(chain=chain)


class MembershipService(MembershipServiceServicer):
    """What admins ask."""

    def __init__(
        self, enrolments: Callable[[], Enrolments], roster: Roster, refused: Refusals
    ) -> None:
        self._enrolments = enrolments
        self._roster = roster
        self._refused = refused

    async def CreateToken(
        self, request: pb.CreateTokenRequest, context: Context
    ) -> pb.CreateTokenResponse:
        with self._refused.noted(calling().uri, Action.CREATE_TOKEN, {}):
            wish = TOKEN_WISH.from_message(request)
            token, expires = self._enrolments().create_token(wish, calling().name)
        response = pb.CreateTokenResponse(token=token)
        response.expires.FromDatetime(expires)
        return response

    async def Certify(self, request: pb.CertifyRequest, context: Context) -> pb.CertifyResponse:
        with self._refused.noted(calling().uri, Action.CERTIFY, {}):
            member = MEMBER.from_message(request.member)
            chain = self._enrolments().certify(member, request.request, calling().name)
        return pb.CertifyResponse(chain=chain)

    async def ListMembers(
        self,
        request: pb.ListMembersRequest,
        context: Context,
    ) -> pb.ListMembersResponse:
        return ROLL.to_message(self._roster.roll())

    async def Revoke(self, request: pb.RevokeRequest, context: Context) -> pb.RevokeResponse:
        with self._refused.noted(calling().uri, Action.REVOKE, {}):
            ended = self._roster.revoke(to_revoke(request), calling().name)
        return pb.RevokeResponse(ended_calls=ended)
