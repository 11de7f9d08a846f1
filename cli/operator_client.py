"""OperatorService over gRPC: what a person, or the evaluator, asks an orchestrator."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, cast

from common import wire, wire_operator
from common.channel import CALL_TIMEOUT_S, Client
from common.errors import NotFound, UnavailableError
from common.frames import FramedChannel
from common.ids import PlanId, WeightsId
from common.protocol import Body
from common.retry import Backoff, wait_after
from common.transfer import Receiver, chunks_of, digest_of
from protos.federation.v1 import operator_pb2 as pb
from protos.federation.v1.operator_pb2_grpc import OperatorServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import grpc.aio

    from common.ids import RunId
    from common.protocol import RunStatus, ScoreSet
    from common.signatures import PlanSignature, RunSignatures

WEIGHTS_LIMIT = 1 << 36  # bytes: what an operator takes from an orchestrator that it chose itself


class OperatorClient(Client):
    """An operator's channel to an orchestrator."""

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._stub = OperatorServiceStub(cast("grpc.aio.Channel", FramedChannel(channel)))

    async def upload_weights(self, data: bytes | memoryview) -> WeightsId:
        """Store weights, canonical safetensors bytes; return the digest that names them."""

        async def requests() -> AsyncIterator[Any]:
            body = Body(digest=digest_of(data), byte_length=len(data))
            yield pb.UploadWeightsRequest(header=wire.BODY.to_message(body))
            for chunk in chunks_of(data):
                yield chunk

        with self._our_errors():
            response = await self._stub.UploadWeights(requests())
        return WeightsId(response.digest)

    async def start_run(self, run_id: RunId, plan: bytes, signature: PlanSignature) -> PlanId:
        """Start the run of that name; the same call again starts nothing."""
        signed = wire.PLAN_SIGNATURE.to_message(signature)
        request = pb.StartRunRequest(run_id=run_id, plan=plan, signature=signed)
        with self._our_errors():
            response = await self._stub.StartRun(request, timeout=CALL_TIMEOUT_S)
        return PlanId(response.plan_digest)

    async def watch_run(self, run_id: RunId) -> AsyncGenerator[tuple[RunStatus, bytes]]:
        """Yield (state, the plan's bytes), now and after every change, until the run has ended."""
        plan = b""
        with self._our_errors():
            async for response in self._stub.WatchRun(pb.WatchRunRequest(run_id=run_id)):
                plan = response.plan or plan
                yield wire_operator.status_from_proto(response.status), plan

    async def follow_run(
        self, run_id: RunId, *, patience: int = 60
    ) -> AsyncGenerator[tuple[RunStatus, bytes]]:
        """Yield as `watch_run`, through restarts of the orchestrator.

        Raises:
            UnavailableError: it did not answer `patience` times in a row.
        """
        failures = 0
        waits = Backoff(limit_s=2.0).waits()
        while True:
            try:
                async for status, plan in self.watch_run(run_id):
                    failures, waits = 0, Backoff(limit_s=2.0).waits()
                    yield status, plan
                    if status.has_ended:
                        return
                wait_s = next(waits)
            except UnavailableError as error:
                failures += 1
                if failures > patience:
                    raise
                wait_s = wait_after(error, waits)
            await asyncio.sleep(wait_s)

    async def run(self, run_id: RunId) -> tuple[RunStatus, bytes]:
        """Return a run's present state and its plan's bytes."""
        async with aclosing(self.watch_run(run_id)) as states:
            return await anext(states)

    async def list_runs(self) -> tuple[RunStatus, ...]:
        """Return every run, the newest first."""
        with self._our_errors():
            call = self._stub.ListRuns(pb.ListRunsRequest(), timeout=CALL_TIMEOUT_S)
            response = await self._dated(call)
        return tuple(wire_operator.status_from_proto(run) for run in response.runs)

    async def signatures(self, run_id: RunId) -> RunSignatures:
        """Return who ordered a run and what gateways accepted; nothing of it is checked here."""
        request = pb.GetSignaturesRequest(run_id=run_id)
        with self._our_errors():
            response = await self._stub.GetSignatures(request, timeout=CALL_TIMEOUT_S)
        return wire_operator.signatures_from_proto(response)

    async def cancel_run(self, run_id: RunId) -> RunStatus:
        """End a run; return its state."""
        request = pb.CancelRunRequest(run_id=run_id)
        with self._our_errors():
            response = await self._stub.CancelRun(request, timeout=CALL_TIMEOUT_S)
        return wire_operator.status_from_proto(response.status)

    async def release_gateway(self, run_id: RunId, gateway: str) -> RunStatus:
        """Take a gateway out of quarantine; return the run's state."""
        request = pb.ReleaseGatewayRequest(run_id=run_id, gateway=gateway)
        with self._our_errors():
            response = await self._stub.ReleaseGateway(request, timeout=CALL_TIMEOUT_S)
        return wire_operator.status_from_proto(response.status)

    async def create_web_link(self) -> tuple[str, int]:
        """Return a link that signs a browser in to the orchestrator's page, and its seconds."""
        with self._our_errors():
            response = await self._stub.CreateWebLink(
                pb.CreateWebLinkRequest(), timeout=CALL_TIMEOUT_S
            )
        return response.url, response.good_for_s

    async def fetch_weights(self, digest: WeightsId) -> memoryview:
        """Return the bytes of weights, their digest checked."""
        request = pb.OperatorServiceFetchWeightsRequest(digest=digest)
        receiver: Receiver | None = None
        with self._our_errors():
            async for response in self._stub.FetchWeights(request):
                part = wire.body_part(response)
                if isinstance(part, Body):
                    named = Body(digest=digest, byte_length=part.byte_length)
                    receiver = Receiver(named, limit=WEIGHTS_LIMIT)
                elif receiver is not None:
                    receiver.take(part)
        if receiver is None:
            raise NotFound(f"the orchestrator sent nothing for weights {digest}: ask it again")
        return receiver.finish()

    async def record_scores(self, run_id: RunId, scores: ScoreSet) -> None:
        """Report how weights did on a public split."""
        message = wire_operator.SCORES.to_message(scores)
        request = pb.RecordScoresRequest(run_id=run_id, scores=message)
        with self._our_errors():
            await self._stub.RecordScores(request, timeout=CALL_TIMEOUT_S)
