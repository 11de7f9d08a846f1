"""Serves the site's own page beside the agent, in its event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from common.listening import write_atomically
from common.web.server import listening_at, serving
from common.web.sessions import Sessions
from gateway.pause import Pause
from gateway.web.account import Ledgers
from gateway.web.app import app_of
from gateway.web.asked import Asked
from gateway.web.notes import Notes
from gateway.web.site import Shown, Site
from gateway.web_links import ADDRESS, Links

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from common.clock import Clock
    from common.ids import GatewayId
    from common.randomness import InsecureSeed
    from gateway.config import GatewayConfig, SitePageSettings
    from gateway.egress_tally import Tally

log = structlog.get_logger()

HOUR_S = 3600.0
DRAIN_S = 2.0


@asynccontextmanager
async def serving_site_page(
    web: SitePageSettings,
    settings: GatewayConfig,
    who: tuple[GatewayId, InsecureSeed | None],
    tally: Tally,
    clock: Clock,
) -> AsyncIterator[Notes]:
    """Serve the page inside the block, at an address that a file in the state folder names.

    Raises:
        AddressTaken: another process has it.
    """
    name, seed = who
    listener = listening_at(web.address)
    url = f"http://{web.address.rpartition(':')[0]}:{listener.getsockname()[1]}"
    notes, closing = Notes(name, Asked(settings.state), clock), asyncio.Event()
    ledgers = Ledgers(settings, seed)
    shown = Shown(notes, tally, Pause(settings.state), ledgers, is_seeded=seed is not None)
    sessions: Sessions[str] = Sessions(clock, web.session_hours * HOUR_S)
    site = Site(shown, sessions, Links(settings.state), clock, url, closing)
    file = settings.state / ADDRESS
    async with serving(app_of(site), listener, closing, drain_s=DRAIN_S):
        write_atomically(file, url)
        log.info("page", url=url)
        try:
            yield notes
        finally:
            file.unlink(missing_ok=True)
