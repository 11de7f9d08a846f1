"""GatewayService over gRPC, as `common.client.OrchestratorClient` describes it."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import structlog

from common import wire, wire_audit
from common.acceptance import Signer
from common.channel import CALL_TIMEOUT_S, Client
from common.http2 import DEFAULT_HTTP2
from common.protocol import Effective
from common.wire_values import InvalidMessage
from gateway.egress import MANIFEST
from gateway.outgoing import GuardedChannel, OutgoingStream
from protos.federation.v1 import audit_pb2, enrolment_pb2
from protos.federation.v1 import gateway_pb2 as pb
from protos.federation.v1.audit_pb2_grpc import AuditServiceStub
from protos.federation.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from protos.federation.v1.gateway_pb2_grpc import GatewayServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    import grpc.aio

    from common.audit import Sealed
    from common.channel import Addresses
    from common.http2 import Http2Settings
    from common.ids import PlanId, RunId, WeightsId
    from common.protocol import (
        Body,
        Chunk,
        Config,
        Countersignature,
        Decline,
        Receipt,
        Refusal,
        Registration,
        RunNews,
        UpdateHeader,
        UpdateKey,
        UploadState,
        Versions,
    )
    from common.tls import TlsFiles
    from gateway.egress import Manifest
    from gateway.egress_tally import Tally


LOG = structlog.get_logger()


class GrpcClient(Client):
    """One gateway's channel to its orchestrator; nothing leaves that the manifest does not list."""

    def __init__(
        self,
        addresses: Addresses,
        tls: TlsFiles,
        manifest: Manifest = MANIFEST,
        http2: Http2Settings = DEFAULT_HTTP2,
        tally: Tally | None = None,
    ) -> None:
        """Prepare channels to `addresses`, each host:port; they connect when they are called.

        What leaves is counted in `tally`, where there is one.
        """
        self._manifest = manifest
        self._tally = tally
        self._watching: Any = None  # the call of the newest Watch
        super().__init__(addresses, tls, http2)
        self._files = tls
        self._signer = Signer.of(tls)  # with the very key that the channels present

    def _use(self, channel: grpc.aio.Channel) -> None:
        guarded = GuardedChannel(channel, self._manifest, self._tally)
        self._stub = GatewayServiceStub(cast("grpc.aio.Channel", guarded))
        self._enrolment = EnrolmentServiceStub(cast("grpc.aio.Channel", guarded))
        self._audit = AuditServiceStub(cast("grpc.aio.Channel", guarded))

    def redial(self) -> None:
        """Connect anew, with the files as they are now; a Watch ends, and nothing else does."""
        super().redial()
        self._signer = Signer.of(self._files)
        if self._watching is not None:
            self._watching.cancel()

    async def renew(self, request: bytes) -> bytes:
        """Return the chain, PEM, for a signing request of this gateway."""
        with self._our_errors():
            response = await self._enrolment.Renew(
                enrolment_pb2.RenewRequest(request=request), timeout=CALL_TIMEOUT_S
            )
        return response.chain

    async def register(self, versions: Versions) -> Registration:
        """Say what this gateway is; learn what the orchestrator is."""
        request = wire.versions_to_register(versions)
        with self._our_errors():
            response = await self._stub.Register(request, timeout=CALL_TIMEOUT_S)
        return wire.registration_from_proto(response)

    async def get_config(self, run_id: RunId) -> Config:
        """Return the plan, its digest checked, and what it gives this gateway."""
        request = pb.GetConfigRequest(run_id=run_id)
        with self._our_errors():
            response = await self._stub.GetConfig(request, timeout=CALL_TIMEOUT_S)
        return wire.config_from_proto(run_id, response)

    async def accept_plan(
        self, run_id: RunId, plan_digest: PlanId, answer: Effective | Refusal
    ) -> None:
        """Answer the plan, before any data are drawn; what is accepted is signed."""
        signature = b""
        if isinstance(answer, Effective):
            signature = self._signer.accept(run_id, plan_digest, answer)
        request = wire.answer_to_proto(run_id, plan_digest, answer, signature)
        with self._our_errors():
            await self._stub.AcceptPlan(request, timeout=CALL_TIMEOUT_S)

    async def watch(self, lease: str, kept_runs: Sequence[RunId]) -> AsyncIterator[RunNews]:
        """Yield the state of each run now, then every change, until the stream breaks or ends."""
        request = pb.WatchRequest(lease=lease, kept_runs=kept_runs)
        self._watching = self._stub.Watch(request)
        with self._our_errors(), _ended_by_redial():
            async for response in self._watching:
                try:
                    news = wire.news_from_proto(response)
                except InvalidMessage as error:  # a newer orchestrator may know more to say
                    LOG.warning("news_not_understood", run=response.run_id, why=str(error))
                    continue
                yield news

    async def fetch_weights(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield the body's declaration, then its chunks from `offset` on."""
        request = pb.FetchWeightsRequest(digest=digest, offset=offset)
        with self._our_errors():
            async for response in self._stub.FetchWeights(request):
                yield wire.body_part(response)

    async def get_upload(self, key: UpdateKey, digest: WeightsId) -> UploadState:
        """Return how much of an update has arrived."""
        request = wire.upload_request(key, digest)
        with self._our_errors():
            response = await self._stub.GetUpload(request, timeout=CALL_TIMEOUT_S)
        return wire.upload_state_from_proto(response)

    async def submit_update(self, header: UpdateHeader, chunks: AsyncIterator[Chunk]) -> Receipt:
        """Send an update from `header.body.offset` on; return once it is counted."""
        first = pb.SubmitUpdateRequest(header=wire.UPDATE_HEADER.to_message(header))
        with self._our_errors():
            async with self._stream(first) as stream:
                if await stream.may_go_ahead():
                    async for chunk in chunks:
                        if not await stream.send(chunk):
                            break
                response = await stream.response()
        return wire.receipt_from_proto(response)

    async def decline(self, decline: Decline) -> Receipt:
        """Say that no update will come for a round."""
        first = pb.SubmitUpdateRequest(decline=wire.DECLINE.to_message(decline))
        with self._our_errors():
            async with self._stream(first, timeout=CALL_TIMEOUT_S) as stream:
                response = await stream.response()
        return wire.receipt_from_proto(response)

    async def get_ledger_head(self, *, insecure_deterministic: bool) -> Countersignature | None:
        """Return the newest head of this gateway's ledger that was countersigned, if any was."""
        request = pb.GetLedgerHeadRequest(insecure_deterministic=insecure_deterministic)
        with self._our_errors():
            response = await self._dated(self._stub.GetLedgerHead(request, timeout=CALL_TIMEOUT_S))
        return wire.ledger_head_from_proto(response)

    async def get_checkpoint(self, after: int) -> Sealed:
        """Return the audit log's newest checkpoint, and what leads to it from a record."""
        request = audit_pb2.GetCheckpointRequest(after=after)
        with self._our_errors():
            response = await self._audit.GetCheckpoint(request, timeout=CALL_TIMEOUT_S)
        return wire_audit.sealed_from_proto(response)

    def _stream(
        self, first: pb.SubmitUpdateRequest, *, timeout: float | None = None
    ) -> OutgoingStream:
        begun = cast("Callable[..., OutgoingStream]", self._stub.SubmitUpdate)
        return begun(first, timeout=timeout)


@contextmanager
def _ended_by_redial() -> Iterator[None]:
    """End the block quietly where the call in it was cancelled, and not the task."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
