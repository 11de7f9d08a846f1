"""GatewayService: parse, ask, reply."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from common import wire
from common.audit import Action, update_facts
from common.frames import GO_AHEAD
from common.ids import PlanId, RunId, WeightsId
from common.protocol import Body
from orchestrator.acceptances import signed_by_caller
from orchestrator.auditing import gateway_uri
from orchestrator.auth import calling_gateway
from orchestrator.bodies import chunks, part_of
from orchestrator.dating import date
from orchestrator.rpc_errors import NotAHeader
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.auth import Context
    from orchestrator.orchestrator import Orchestrator


NOTHING = pb.SubmitUpdateRequest()  # stands for a stream that ends before its first message


class GatewayService(GatewayServiceServicer):
    """What gateways ask, answered by the orchestrator."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._orchestrator = orchestrator

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.RegisterResponse:
        versions = wire.versions_from_register(request)
        registration = self._orchestrator.sessions.register(calling_gateway(context), versions)
        return wire.registration_to_proto(registration)

    async def GetConfig(
        self, request: pb.GetConfigRequest, context: Context
    ) -> pb.GetConfigResponse:
        run_id = RunId(request.run_id)
        return wire.config_to_proto(self._orchestrator.get_config(calling_gateway(context), run_id))

    async def AcceptPlan(
        self, request: pb.AcceptPlanRequest, context: Context
    ) -> pb.AcceptPlanResponse:
        run_id, plan_digest = RunId(request.run_id), PlanId(request.plan_digest)
        answer = wire.answer_from_proto(request)
        signed = signed_by_caller(context, request, answer)
        gateway = calling_gateway(context)
        self._orchestrator.accept_plan(gateway, run_id, plan_digest, answer, signed)
        return pb.AcceptPlanResponse()

    async def Watch(
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchResponse]:
        kept = wire.run_ids(request.kept_runs)
        stream = self._orchestrator.sessions.watch(calling_gateway(context), request.lease, kept)
        async with aclosing(stream) as all_news:
            async for news in all_news:
                yield wire.news_to_proto(news)

    async def FetchWeights(
        self, request: pb.FetchWeightsRequest, context: Context
    ) -> AsyncIterator[Any]:  # pb.FetchWeightsResponse, or a Chunk that is packed as one
        gateway, digest = calling_gateway(context), WeightsId(request.digest)
        stream = self._orchestrator.downloads.for_gateway(gateway, digest, request.offset)
        async with aclosing(stream) as parts:  # it gives its turn back at once
            async for part in parts:
                if isinstance(part, Body):
                    yield pb.FetchWeightsResponse(header=wire.BODY.to_message(part))
                else:
                    yield part

    async def GetUpload(
        self, request: pb.GetUploadRequest, context: Context
    ) -> pb.GetUploadResponse:
        key, gateway = wire.KEY.from_message(request.key), calling_gateway(context)
        digest = wire.BODY.check({"digest": request.digest, "byte_length": 0}).digest
        state = self._orchestrator.submissions.get_upload(gateway, key, digest)
        return wire.upload_state_to_proto(state)

    async def SubmitUpdate(
        self, request_iterator: AsyncIterator[pb.SubmitUpdateRequest], context: Context
    ) -> pb.SubmitUpdateResponse:
        gateway, first = calling_gateway(context), await anext(request_iterator, NOTHING)
        if part_of(first) == "decline":
            decline = wire.DECLINE.from_message(first.decline)
            return wire.receipt_to_proto(self._orchestrator.submissions.decline(gateway, decline))
        if part_of(first) != "header":
            raise NotAHeader("SubmitUpdateRequest")
        header = wire.UPDATE_HEADER.from_message(first.header)
        actor = gateway_uri(self._orchestrator.audit.federation, gateway)
        with self._orchestrator.refused_calls.noted(
            actor, Action.SUBMIT_UPDATE, update_facts(header)
        ):
            receipt = await self._orchestrator.submissions.submit(
                gateway,
                header,
                chunks(request_iterator, "SubmitUpdateRequest"),
                go_ahead=lambda: context.send_initial_metadata(((GO_AHEAD, "1"),)),
            )
        return wire.receipt_to_proto(receipt)

    async def GetLedgerHead(
        self, request: pb.GetLedgerHeadRequest, context: Context
    ) -> pb.GetLedgerHeadResponse:
        date(context, self._orchestrator.clock)
        newest = self._orchestrator.ledger_heads.newest(
            calling_gateway(context), insecure_deterministic=request.insecure_deterministic
        )
        return wire.ledger_head_to_proto(newest)
