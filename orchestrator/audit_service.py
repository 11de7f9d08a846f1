"""AuditService: parse, ask, reply."""
# ruff: noqa: ARG002 - the signatures are gRPC's; who may call was checked before

from __future__ import annotations

from typing import TYPE_CHECKING

from common import wire_audit
from common.ids import RunId
from protos.federation.v1 import audit_pb2 as pb
from protos.federation.v1.audit_pb2_grpc import AuditServiceServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from orchestrator.auth import Context
    from orchestrator.orchestrator import Orchestrator


class AuditService(AuditServiceServicer):
    """What is on record, for those who check it."""

    def __init__(self, orchestrator: Orchestrator) -> None:
        self._audit = orchestrator.audit
        self._lineage = orchestrator.lineage
        self._runs = orchestrator.runs

    async def ListRecords(
        self, request: pb.ListRecordsRequest, context: Context
    ) -> pb.ListRecordsResponse:
        lines = self._audit.records(wire_audit.place(request.after))
        return wire_audit.records_to_proto(lines)

    async def ListCheckpoints(
        self, request: pb.ListCheckpointsRequest, context: Context
    ) -> pb.ListCheckpointsResponse:
        found = self._audit.checkpoints(wire_audit.place(request.after))
        return pb.ListCheckpointsResponse(checkpoints=map(wire_audit.CHECKPOINT.to_message, found))

    async def GetCheckpoint(
        self, request: pb.GetCheckpointRequest, context: Context
    ) -> pb.GetCheckpointResponse:
        with self._runs.halting():
            sealed = self._audit.sealed(wire_audit.place(request.after))
        return wire_audit.sealed_to_proto(sealed)

    async def GetLineage(
        self, request: pb.GetLineageRequest, context: Context
    ) -> AsyncIterator[pb.GetLineageResponse]:
        run_id = self._runs.get(RunId(request.run_id)).run.run_id
        for signed in self._lineage.statements(run_id):
            yield wire_audit.signed_to_proto(signed)
