"""Looks where the orchestrator's audit log stands, and for all that leads there."""

from __future__ import annotations

import asyncio
from logging import ERROR, WARNING
from typing import TYPE_CHECKING

import structlog

from common.audit import LINK_BYTES, Sealed
from common.errors import FederationError
from common.mailbox import MOST_SUBJECTS

if TYPE_CHECKING:
    from common.client import OrchestratorClient
    from common.ids import RunId
    from gateway.workshop import Workshop

LOG = structlog.get_logger()
MOST_LINKS = 1 << 26  # bytes: two million records since the last look
BETWEEN_LOOKS_S = 5.0  # short rounds share a look, which costs both sides 2 ms


class RecordWatch:
    """Keeps where the audit log was seen to stand, for its stories to be compared."""

    def __init__(self, workshop: Workshop, client: OrchestratorClient) -> None:
        """Ask `client`; what it answers is kept in the ledger of `workshop`."""
        self._workshop = workshop
        self._client = client
        self._published: dict[RunId, int] = {}  # rounds after which a look was due
        self._is_due = asyncio.Event()

    def note_published(self, run: RunId, published_round: int) -> None:
        """Have a look taken soon, if a round was published since the last word on the run."""
        if published_round <= self._published.get(run, 0):
            return
        if len(self._published) >= MOST_SUBJECTS:
            self._published.clear()  # of runs that nobody ends: it costs a look more
        self._published[run] = published_round
        self._is_due.set()

    def forget(self, run: RunId) -> None:
        """Let go of a run that has ended."""
        self._published.pop(run, None)

    async def look_when_due(self) -> None:
        """Look beside the work: no round waits for it, the last one is never left."""
        while await self._is_due.wait():
            self._is_due.clear()
            await self.look()
            await asyncio.sleep(BETWEEN_LOOKS_S)

    async def look(self) -> None:
        """Keep where the log stands now; where it is not shown, say so and go on."""
        try:
            sealed = await sealed_after(self._client, self._workshop.record_head.sequence)
        except FederationError as error:  # an older orchestrator has none; nobody waits for it
            known = self._workshop.record_head.sequence
            level = ERROR if known else WARNING  # one that was seen before is kept from us
            LOG.log(level, "audit_log_not_seen", why=str(error), seen_before=known)
        else:
            self._workshop.see_record(sealed)


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
