"""A gateway that serves its own page, and those who look at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from common.clock import Clock
from common.tls import TlsFiles
from gateway.client import GrpcClient
from gateway.config import GatewayConfig, SitePageSettings
from gateway.egress_tally import Tally
from gateway.pause import Pause
from gateway.web.notes import Notes
from gateway.web.server import serving_site_page
from gateway.web_links import ADDRESS, Links
from gateway.workshop import Workshop
from tasks.task import Task
from tests.at_work import SITE, at_work
from tests.fakes import FakeClock
from tests.page import Visitor, token_in, visitor
from tests.tiny_task import TASK

LABELS = ("no", "yes")
WEB = SitePageSettings(address="127.0.0.1:0")


@dataclass
class SitePage:
    """A page that is served, and what stands behind it."""

    config: GatewayConfig
    notes: Notes
    tally: Tally
    clock: Clock
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = (self.config.state / ADDRESS).read_text()

    @property
    def pause(self) -> Pause:
        return Pause(self.config.state)

    def link(self) -> str:
        return Links(self.config.state).create(self.clock.wall())

    @asynccontextmanager
    async def signed_in(self) -> AsyncIterator[Visitor]:
        """Lend somebody who has signed in with a link."""
        async with visitor(self.url) as one:
            answer = await one.post("/sign-in", token=token_in(self.link()))
            assert answer.status_code == 303, answer.text
            yield one


@asynccontextmanager
async def site_page(config: GatewayConfig, clock: Clock | None = None) -> AsyncIterator[SitePage]:
    """Serve the page of a gateway that is not at work."""
    tally, clock = Tally(), clock or FakeClock()
    async with serving_site_page(WEB, config, (SITE, None), tally, clock) as notes:
        yield SitePage(config, notes, tally, clock)


@asynccontextmanager
async def site_at_work(
    address: str, files: TlsFiles, config: GatewayConfig, task: Task = TASK
) -> AsyncIterator[SitePage]:
    """Have a gateway with a page take part in what an orchestrator does."""
    workshop = Workshop(SITE, config, task, None)
    async with (
        site_page(config) as page,
        GrpcClient(address, files, tally=page.tally) as client,
        at_work(workshop, client, watcher=page.notes),
    ):
        yield page
