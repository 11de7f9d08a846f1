"""AuditService over gRPC: what an auditor asks an orchestrator."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from common import wire_audit
from common.channel import CALL_TIMEOUT_S, Client
from common.frames import FramedChannel
from protos.federation.v1 import audit_pb2 as pb
from protos.federation.v1.audit_pb2_grpc import AuditServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio

    from common.audit import Checkpoint, Line
    from common.ids import RunId
    from common.lineage import Signed

NO_LINKS = (1 << 62) - 1  # after the last record that there could be


class AuditClient(Client):
    """An auditor's channel to an orchestrator."""

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._stub = AuditServiceStub(cast("grpc.aio.Channel", FramedChannel(channel)))

    async def records(self, after: int = 0) -> AsyncIterator[Line]:
        """Yield the records after record `after`; nothing of them is checked here."""
        while True:
            request = pb.ListRecordsRequest(after=after)
            with self._our_errors():
                response = await self._stub.ListRecords(request, timeout=CALL_TIMEOUT_S)
            page = wire_audit.records_from_proto(response)
            for line in page:
                yield line
            if not page or page[-1].sequence <= after:
                return
            after = page[-1].sequence

    async def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return every checkpoint that the orchestrator has kept."""
        found: list[Checkpoint] = []
        while True:
            request = pb.ListCheckpointsRequest(after=found[-1].sequence if found else 0)
            with self._our_errors():
                response = await self._stub.ListCheckpoints(request, timeout=CALL_TIMEOUT_S)
            if not response.checkpoints:
                return tuple(found)
            found.extend(map(wire_audit.CHECKPOINT.from_message, response.checkpoints))

    async def checkpoint(self) -> Checkpoint:
        """Return a checkpoint of every record that there is."""
        request = pb.GetCheckpointRequest(after=NO_LINKS)
        with self._our_errors():
            response = await self._stub.GetCheckpoint(request, timeout=CALL_TIMEOUT_S)
        return wire_audit.sealed_from_proto(response).checkpoint

    async def lineage(self, run_id: RunId) -> tuple[Signed, ...]:
        """Return the signed statements of a run; nothing of them is checked here."""
        with self._our_errors():
            stream = self._stub.GetLineage(pb.GetLineageRequest(run_id=run_id))
            return tuple([wire_audit.signed_from_proto(each) async for each in stream])
