"""What a gateway can ask of an orchestrator, whether over gRPC or in the same process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from common.audit import Sealed
    from common.ids import PlanId, RunId, WeightsId
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


class OrchestratorClient(Protocol):
    """The calls of GatewayService, as one gateway makes them.

    Each raises a child of `FederationError`: `RequestError` (change it), `ConflictError` (wrong
    moment) or `UnavailableError` (try again).
    """

    async def register(self, versions: Versions) -> Registration:
        """Say what this gateway is; learn what the orchestrator is."""

    async def get_config(self, run_id: RunId) -> Config:
        """Return the plan and what it gives this gateway."""

    async def accept_plan(
        self, run_id: RunId, plan_digest: PlanId, answer: Effective | Refusal
    ) -> None:
        """Answer the plan, before any data are drawn."""

    def watch(self, lease: str, kept_runs: Sequence[RunId]) -> AsyncIterator[RunNews]:
        """Yield the state of each run now, then every change."""

    def fetch_weights(self, digest: WeightsId, offset: int) -> AsyncIterator[Body | Chunk]:
        """Yield the body's declaration, then its chunks from `offset` on."""

    async def get_upload(self, key: UpdateKey, digest: WeightsId) -> UploadState:
        """Return how much of an update has arrived."""

    async def submit_update(self, header: UpdateHeader, chunks: AsyncIterator[Chunk]) -> Receipt:
        """Send an update from `header.body.offset` on; return once it is counted."""

    async def decline(self, decline: Decline) -> Receipt:
        """Say that no update will come for a round."""

    async def get_ledger_head(self, *, insecure_deterministic: bool) -> Countersignature | None:
        """Return the newest head of this gateway's ledger that was countersigned, if any was."""

    async def get_checkpoint(self, after: int) -> Sealed:
        """Return the audit log's newest checkpoint, and what leads to it from a record."""
