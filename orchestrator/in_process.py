"""The orchestrator as one gateway sees it, without a socket between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from common.audit import Sealed
    from common.ids import GatewayId, PlanId, RunId, WeightsId
    from common.protocol import (
        Body,
        Chunk,
        Config,
        Countersignature,
        Decline,
        Effective,
        Receipt,
        Refusal,
        Registration,
        RunNews,
        UpdateHeader,
        UpdateKey,
        UploadState,
        Versions,
    )
    from orchestrator.orchestrator import Orchestrator


@dataclass(frozen=True)
class InProcessClient:
    """A `common.client.OrchestratorClient` for one gateway."""

    orchestrator: Orchestrator
    gateway: GatewayId

    async def register(self, versions: Versions) -> Registration:
        """Say what this gateway is; learn what the orchestrator is."""
        return self.orchestrator.sessions.register(self.gateway, versions)

    async def get_config(self, run_id: RunId) -> Config:
        """Return the plan and what it gives this gateway."""
        return self.orchestrator.get_config(self.gateway, run_id)

    async def accept_plan(
        self, run_id: RunId, plan_digest: PlanId, answer: Effective | Refusal
    ) -> None:
        """Answer the plan, before any data are drawn."""
        self.orchestrator.accept_plan(self.gateway, run_id, plan_digest, answer)

    def watch(self, lease: str, kept_runs: Sequence[RunId]) -> AsyncIterator[RunNews]:
        """Yield the state of each run now, then every change."""
        return self.orchestrator.sessions.watch(self.gateway, lease, kept_runs)

    def fetch_weights(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield the body's declaration, then its chunks from `offset` on."""
        return self.orchestrator.downloads.for_gateway(self.gateway, digest, offset)

    async def get_upload(self, key: UpdateKey, digest: WeightsId) -> UploadState:
        """Return how much of an update has arrived."""
        return self.orchestrator.submissions.get_upload(self.gateway, key, digest)

    async def submit_update(self, header: UpdateHeader, chunks: AsyncIterator[Chunk]) -> Receipt:
        """Send an update from `header.body.offset` on; return once it is counted."""
        return await self.orchestrator.submissions.submit(self.gateway, header, chunks)

    async def decline(self, decline: Decline) -> Receipt:
        """Say that no update will come for a round."""
        return self.orchestrator.submissions.decline(self.gateway, decline)

    async def get_ledger_head(self, *, insecure_deterministic: bool) -> Countersignature | None:
        """Return the newest head of this gateway's ledger that was countersigned, if any was."""
        heads = self.orchestrator.ledger_heads
        return heads.newest(self.gateway, insecure_deterministic=insecure_deterministic)

    async def get_checkpoint(self, after: int) -> Sealed:
        """Return the audit log's newest checkpoint, and what leads to it from a record."""
        return self.orchestrator.audit.sealed(after)
