"""Asks where the orchestrator's audit log stands, and for all that leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from common.audit import LINK_BYTES, Sealed

if TYPE_CHECKING:
    from common.client import OrchestratorClient

MOST_LINKS = 1 << 26  # bytes: two million records since the last look


async def sealed_after(client: OrchestratorClient, after: int) -> Sealed:
    """Return the newest checkpoint and what leads to it from record `after`, page by page.

    What an orchestrator does not give is missing in the answer, and told there.
    """
    sealed, links = await client.get_checkpoint(after), b""
    while sealed.links and len(links) < MOST_LINKS:
        links += sealed.links
        reached = after + len(links) // LINK_BYTES
        if reached >= sealed.checkpoint.sequence:
            break
        sealed = await client.get_checkpoint(reached)
    return Sealed(sealed.checkpoint, links)
