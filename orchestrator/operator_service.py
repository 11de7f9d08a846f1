"""OperatorService: parse, ask, reply."""
# ruff: noqa: ARG002 - the signatures are gRPC's; that an operator calls was checked before

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from common import wire, wire_operator
from common.audit import Action
from common.ids import GatewayId, RunId, WeightsId
from common.protocol import Body
from orchestrator.auth import call_under_way, calling
from orchestrator.bodies import chunks, part_of
from orchestrator.dating import date
from orchestrator.rpc_errors import NotAHeader
from protos.federation.v1 import operator_pb2 as pb
from protos.federation.v1.operator_pb2_grpc import OperatorServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.auth import Context
    from orchestrator.orchestrator import Orchestrator
    from orchestrator.web_sessions import WebSessions

NOTHING = pb.UploadWeightsRequest()  # stands for a stream that ends before its first message


class OperatorService(OperatorServiceServicer):
    """What people ask, answered by the orchestrator."""

    def __init__(self, orchestrator: Orchestrator, page: WebSessions) -> None:
        self._clock = orchestrator.clock
        self._page = page
        self._operations = orchestrator.operations
        self._refused = orchestrator.refused_calls
        self._downloads = orchestrator.downloads

    async def UploadWeights(
        self, request_iterator: AsyncIterator[pb.UploadWeightsRequest], context: Context
    ) -> pb.UploadWeightsResponse:
        actor = calling().uri
        with self._refused.noted(actor, Action.UPLOAD_WEIGHTS, {}):
            first = await anext(request_iterator, NOTHING)
            if part_of(first) != "header":
                raise NotAHeader("UploadWeightsRequest")
            body = wire.BODY.from_message(first.header)
            digest = await self._operations.put_weights(
                body, chunks(request_iterator, "UploadWeightsRequest"), actor
            )
        return pb.UploadWeightsResponse(digest=digest)

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        run_id, actor = RunId(request.run_id), calling().uri
        with self._refused.noted(actor, Action.START_RUN, {"run": run_id}):
            signature = wire.signature_from_proto(request)
            plan_digest = await self._operations.start_run(run_id, request.plan, signature, actor)
        return pb.StartRunResponse(run_id=run_id, plan_digest=plan_digest)

    async def WatchRun(
        self, request: pb.WatchRunRequest, context: Context
    ) -> AsyncIterator[pb.WatchRunResponse]:
        run_id = RunId(request.run_id)
        plan = self._operations.plan_bytes(run_id)
        async with aclosing(self._operations.watch_run(run_id)) as statuses:
            async for status in statuses:
                message = wire_operator.status_to_proto(status)
                yield pb.WatchRunResponse(status=message, plan=plan)
                plan = b""

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        date(context, self._clock)
        runs = await self._operations.list_runs()
        return pb.ListRunsResponse(runs=map(wire_operator.status_to_proto, runs))

    async def GetSignatures(
        self, request: pb.GetSignaturesRequest, context: Context
    ) -> pb.GetSignaturesResponse:
        signatures = await self._operations.signatures(RunId(request.run_id))
        return wire_operator.signatures_to_proto(signatures)

    async def CancelRun(
        self, request: pb.CancelRunRequest, context: Context
    ) -> pb.CancelRunResponse:
        run_id, actor = RunId(request.run_id), calling().uri
        with self._refused.noted(actor, Action.CANCEL_RUN, {"run": run_id}):
            status = self._operations.cancel_run(run_id, actor)
        return pb.CancelRunResponse(status=wire_operator.status_to_proto(status))

    async def ReleaseGateway(
        self, request: pb.ReleaseGatewayRequest, context: Context
    ) -> pb.ReleaseGatewayResponse:
        run_id, gateway = RunId(request.run_id), GatewayId(request.gateway)
        actor, facts = calling().uri, {"run": run_id, "gateway": gateway}
        with self._refused.noted(actor, Action.RELEASE_GATEWAY, facts):
            status = self._operations.release_gateway(run_id, gateway, actor)
        return pb.ReleaseGatewayResponse(status=wire_operator.status_to_proto(status))

    async def CreateWebLink(
        self, request: pb.CreateWebLinkRequest, context: Context
    ) -> pb.CreateWebLinkResponse:
        url, good_for_s = self._page.create_link(call_under_way())
        return pb.CreateWebLinkResponse(url=url, good_for_s=good_for_s)

    async def FetchWeights(
        self, request: pb.OperatorServiceFetchWeightsRequest, context: Context
    ) -> AsyncIterator[Any]:  # OperatorServiceFetchWeightsResponse, or a Chunk packed as one
        parts = self._downloads.for_operator(WeightsId(request.digest), request.offset)
        async for part in parts:
            if isinstance(part, Body):
                header = wire.BODY.to_message(part)
                yield pb.OperatorServiceFetchWeightsResponse(header=header)
            else:
                yield part

    async def RecordScores(
        self, request: pb.RecordScoresRequest, context: Context
    ) -> pb.RecordScoresResponse:
        run_id, actor = RunId(request.run_id), calling().uri
        with self._refused.noted(actor, Action.RECORD_SCORES, {"run": run_id}):
            scores = wire_operator.SCORES.from_message(request.scores)
            self._operations.record_scores(run_id, scores, actor)
        return pb.RecordScoresResponse()
