"""What a gateway tells its own site's Prometheus: when it worked, not what on."""

from __future__ import annotations

from contextlib import asynccontextmanager

from common.protocol import RunState
from common.tls import Role
from gateway.metrics import METRICS_ADDRESS, measured
from gateway.workshop import Workshop
from tests.at_work import SITE, at_work, plan_for, settings
from tests.fakes import until
from tests.scraping import scrape
from tests.tiny_task import TASK, TinyTask

LABELS = ("no", "yes")
ANYWHERE = "127.0.0.1:0"
SPECIMENS = 3  # of the tiny task: its model is checked on them before any round


class Breaking(TinyTask):
    """Its loss fails on any batch of the data."""

    def loss(self, model, batch):
        if len(batch[0]) > SPECIMENS:
            raise ValueError("the data are odd")
        return super().loss(model, batch)


@asynccontextmanager
async def site_at_work(federation, folder, task=TASK):
    """A gateway that is measured, in a run of two rounds that has ended."""
    files = federation.authority.issue(Role.GATEWAY, SITE)
    plan, initial = plan_for(TASK, LABELS, units=60, rounds={"count": 2, "maximum": 2})
    state = folder / "site"
    state.mkdir()
    async with federation.serving(), measured(ANYWHERE, files, state) as metrics:
        operator = await federation.start(plan, initial=initial)
        workshop = Workshop(SITE, settings(state, files, LABELS), task, None)
        client = await federation.client(SITE, files)
        async with at_work(workshop, client, watcher=metrics):
            yield (
                await until(operator, lambda s: s.has_ended),
                (state / METRICS_ADDRESS).read_text(),
            )


async def test_rounds_phases_and_bytes_are_counted(federation, tmp_path):
    async with site_at_work(federation, tmp_path) as (status, address):
        assert status.state is RunState.COMPLETED
        figures = await scrape(address)
    assert figures("fedgate_gateway_connected") == 1
    assert figures("fedgate_gateway_rounds_total", outcome="counted") == 2
    for phase in ("fetch", "train", "send"):
        assert figures("fedgate_gateway_phase_seconds_count", phase=phase) == 2
    assert figures("fedgate_gateway_weights_fetched_bytes_total") > 100
    assert figures("fedgate_gateway_updates_sent_bytes_total") > 100


async def test_a_round_that_the_gateway_declines_is_counted(federation, tmp_path):
    async with site_at_work(federation, tmp_path, Breaking()) as (status, address):
        assert status.state is RunState.FAILED
        figures = await scrape(address)
    assert figures("fedgate_gateway_rounds_total", outcome="declined") >= 1
    assert figures("fedgate_gateway_rounds_total", outcome="counted") == 0


ALLOWED = {
    "fedgate_gateway_connected",
    "fedgate_gateway_rounds",
    "fedgate_gateway_phase_seconds",
    "fedgate_gateway_weights_fetched_bytes",
    "fedgate_gateway_updates_sent_bytes",
    "fedgate_certificate_not_after_timestamp_seconds",
    "fedgate_build_info",
}


async def test_nothing_tells_of_units_batches_losses_or_budgets(federation, tmp_path):
    async with site_at_work(federation, tmp_path) as (_, address):
        figures = await scrape(address)
    names = {family.name.removesuffix("_created") for family in figures.families}
    assert {name for name in names if not name.startswith("process_")} == ALLOWED
    labels = {(name, value) for name, value in figures.labels if name not in {"le", "version"}}
    assert labels == {
        *(("outcome", each) for each in ("counted", "set_aside", "declined", "too_late")),
        *(("phase", each) for each in ("fetch", "train", "send")),
    }
