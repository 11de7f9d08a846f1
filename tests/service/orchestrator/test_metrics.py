"""What an orchestrator tells Prometheus of itself, of its runs, and of nobody by name."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from common.bad_updates import NormMode, UpdateNorm
from common.config import load_settings
from common.disk import SYSTEM_DISK
from common.errors import FederationError, RequestError
from common.ids import RunId
from common.listening import AddressTaken
from common.plan import Rounds
from common.protocol import Decline, Refusal, RefusalReason, RunState, UpdateKey
from common.telemetry import MetricsSettings
from common.tls import Role
from orchestrator import gauges
from orchestrator.config import OrchestratorConfig
from orchestrator.gauges import Gauges
from orchestrator.server import listening
from tests.fakes import INITIAL, LAYOUT, FakeClock, chunks, plan_of, until
from tests.scraping import Figures, scrape

ROUNDS = Rounds(count=2, maximum=3, quorum=1, deadline_s=60.0, retry_pause_s=0.0)
PLAN = plan_of("a", "b", rounds=ROUNDS)
PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "monitor.md"
ANYWHERE = MetricsSettings(address="127.0.0.1:0")


class Measured:
    """A federation that is served, and how it looks to Prometheus."""

    def __init__(self, federation, server) -> None:
        self.federation, self.server = federation, server

    async def figures(self) -> Figures:
        return await scrape(self.federation.config.metrics_address_file.read_text())

    async def invited(self, *names: str, plan=PLAN):
        """Return gateways that take part in a run whose first round is open."""
        await self.federation.start(plan)
        gateways = await self.federation.gateways(*names, kind=self.federation.kind)
        for gateway in gateways:
            await gateway.accept("r")
        return gateways


@pytest.fixture
async def measured(federation, lawless):
    federation.kind = lawless
    federation.config = federation.config.model_copy(update={"metrics": ANYWHERE})
    async with federation.serving() as server:
        yield Measured(federation, server)


async def completed(measured) -> None:
    operator = await measured.federation.start(PLAN)
    gateways = await measured.federation.gateways("a", "b")
    await asyncio.gather(*(gateway.follow("r") for gateway in gateways))
    await until(operator, lambda status: status.state is RunState.COMPLETED)


async def send(gateway, data: bytes, number: int = 1):
    header = await gateway.header("r", number, INITIAL.digest, data)
    return await gateway.client.submit_update(header, chunks(data, header.body.offset))


async def test_a_run_is_counted_from_its_beginning_to_its_end(measured):
    await completed(measured)
    figures = await measured.figures()
    assert figures("fedgate_runs_ended_total", outcome="completed") == 1
    assert figures("fedgate_runs", state="running") == 0
    assert figures("fedgate_rounds_opened_total") == 2
    assert figures("fedgate_rounds_ended_total", outcome="published") == 2
    assert figures("fedgate_updates_counted_total") == 4


async def test_each_phase_of_a_round_is_measured(measured):
    await completed(measured)
    figures = await measured.figures()
    for phase in ("collecting", "aggregating"):
        assert figures("fedgate_round_phase_seconds_count", phase=phase) == 2


async def test_a_phase_takes_as_long_as_the_clock_says(measured):
    a, b = await measured.invited("a", "b")
    measured.federation.clock.advance(7.0)
    await send(a, a.body(1))
    await send(b, b.body(1))
    figures = await measured.figures()
    assert figures("fedgate_round_phase_seconds_sum", phase="collecting") == 7.0


async def test_bytes_are_counted_as_they_go(measured):
    await completed(measured)
    figures, length = await measured.figures(), len(INITIAL.to_bytes())
    assert figures("fedgate_updates_received_bytes_total") == 4 * length
    assert figures("fedgate_weights_sent_bytes_total") == 4 * length


async def test_gateways_that_a_run_needs_are_away_until_they_connect(measured):
    await measured.federation.start(PLAN)
    assert (await measured.figures())("fedgate_gateways_away") == 2
    gateway = (await measured.federation.gateways("a"))[0]
    following = asyncio.create_task(gateway.follow("r"))
    operator = await measured.federation.operator()
    await until(operator, lambda status: any(each.answer for each in status.gateways))
    figures = await measured.figures()
    assert figures("fedgate_gateways_away") == figures("fedgate_gateways_connected") == 1
    assert figures("fedgate_calls_open") >= 1
    following.cancel()
    await asyncio.wait([following])


async def test_a_refused_update_is_counted_by_its_reason(measured):
    a, _ = await measured.invited("a", "b")
    values = np.full(LAYOUT.size, np.nan, dtype=np.float32)
    with pytest.raises(FederationError):
        await send(a, type(INITIAL)(LAYOUT, values).to_bytes())
    figures = await measured.figures()
    assert figures("fedgate_updates_refused_total", reason="not_finite") == 1
    assert figures("fedgate_calls_refused_total", reason="NotFinite") == 1


async def test_a_round_that_is_declined_is_counted_by_its_reason(measured):
    a, _ = await measured.invited("a", "b")
    key = UpdateKey(RunId("r"), 1)
    await a.client.decline(Decline(key, Refusal(RefusalReason.FAILED)))
    figures = await measured.figures()
    assert figures("fedgate_updates_declined_total", reason="failed") == 1


async def test_an_update_that_is_scaled_down_is_counted_as_clipped_too(measured):
    norm = UpdateNorm(mode=NormMode.FIXED, bound=0.1)
    a, _ = await measured.invited("a", "b", plan=plan_of("a", "b", rounds=ROUNDS, update_norm=norm))
    await send(a, a.body(1))
    figures = await measured.figures()
    assert figures("fedgate_updates_clipped_total") == 1
    assert figures("fedgate_updates_counted_total") == 1


async def test_a_call_that_is_turned_away_is_counted(measured):
    stranger = await measured.federation.client("x")
    with pytest.raises(RequestError):
        await stranger.get_config(RunId("none"))
    figures = await measured.figures()
    assert figures("fedgate_calls_refused_total", reason="UnknownRun") == 1


async def test_a_round_past_its_deadline_is_overdue(measured):
    await measured.invited("a", "b")
    runs = measured.server.orchestrator.runs
    assert (await measured.figures())("fedgate_deadline_overdue_seconds") == 0
    runs.get("r").deadline -= 60.0 + 5.0  # as where its driver hangs
    assert (await measured.figures())("fedgate_deadline_overdue_seconds") == 5.0


async def test_a_write_that_failed_leaves_its_run_in_doubt(measured, monkeypatch):
    a, _ = await measured.invited("a", "b")
    fence = measured.server.orchestrator.fence

    def away():
        raise OperationalError("", {}, Exception("away"))

    monkeypatch.setattr(fence._engine, "begin", away)
    with pytest.raises(FederationError):
        await a.client.decline(Decline(UpdateKey(RunId("r"), 1), Refusal(RefusalReason.FAILED)))
    assert (await measured.figures())("fedgate_runs_in_doubt") == 1


async def test_writes_to_the_journal_are_timed(measured):
    await measured.invited("a", "b")
    assert (await measured.figures())("fedgate_journal_commit_seconds_count") >= 4


async def test_it_leads_until_another_takes_over(measured):
    assert (await measured.figures())("fedgate_leader") == 1
    measured.server.orchestrator.runs.halt(RuntimeError("another one took over"))
    assert (await measured.figures())("fedgate_leader") == 0


async def test_a_standby_says_that_it_does_not_lead(federation):
    federation.config.state.mkdir()
    found = {
        each.name: each for each in Gauges(federation.config, FakeClock(), SYSTEM_DISK).collect()
    }
    assert [sample.value for sample in found["fedgate_leader"].samples] == [0.0]
    assert "fedgate_runs" not in found


async def test_a_process_whose_loop_does_not_answer_does_not_lead(measured, monkeypatch):
    monkeypatch.setattr(gauges, "PATIENCE_S", 0.05)
    stuck = Gauges(measured.federation.config, FakeClock(), SYSTEM_DISK)
    stuck.watch(measured.server.orchestrator)
    with capture_logs() as logged:
        found = {each.name: each for each in stuck.collect()}  # on the loop that it waits for
    assert [sample.value for sample in found["fedgate_leader"].samples] == [0.0]
    assert [each["event"] for each in logged] == ["loop_does_not_answer"]


async def test_disk_memory_certificate_version_and_process_are_there(measured):
    figures = await measured.figures()
    assert figures("fedgate_disk_free_bytes", folder="state") > 0
    assert figures("fedgate_disk_reserve_bytes") == 256 << 20
    assert figures("fedgate_memory_budget_bytes") == 2048 << 20
    assert figures("fedgate_memory_budget_taken_bytes") == 0
    assert figures("fedgate_certificate_not_after_timestamp_seconds") > 1e9
    assert figures("process_resident_memory_bytes") > 0
    assert "fedgate_build_info" in figures.names


async def test_a_certificate_that_cannot_be_read_has_no_end(measured):
    measured.federation.config.tls.certificate.unlink()
    figures = await measured.figures()
    assert "fedgate_certificate_not_after_timestamp_seconds" not in figures.names
    assert figures("fedgate_leader") == 1


async def test_no_label_names_a_gateway_or_a_run(measured):
    await completed(measured)
    values = {value for _, value in (await measured.figures()).labels}
    assert not values & {"a", "b", "r", "toy"}


async def test_the_page_explains_every_figure(measured):
    figures = await measured.figures()
    ours = {each.name for each in figures.families if each.name.startswith("fedgate_")}
    page = PAGE.read_text(encoding="utf-8")
    assert {
        name for name in ours if f"`{name}" not in page and not name.endswith("_created")
    } == set()


async def test_figures_end_with_the_orchestrator(federation):
    config = federation.config.model_copy(update={"metrics": ANYWHERE})
    async with listening(config):
        address = config.metrics_address_file.read_text()
    assert not config.metrics_address_file.exists()
    with pytest.raises(OSError, match="refused"):
        await scrape(address)


async def test_without_the_table_nothing_is_served(federation):
    async with federation.serving():
        assert not federation.config.metrics_address_file.exists()


async def test_an_empty_table_means_loopback(federation, tmp_path):
    files = federation.authority.issue(Role.ORCHESTRATOR, "orchestrator")
    lines = "\n".join(f'{name} = "{path}"' for name, path in files)
    path = tmp_path / "orchestrator.toml"
    path.write_text(f'federation = "acme"\n[metrics]\n[tls]\n{lines}\n')
    assert load_settings(OrchestratorConfig, path).metrics.address == "127.0.0.1:9464"


async def test_an_address_that_is_taken_is_said(federation):
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        config = federation.config.model_copy(update={"metrics": MetricsSettings(address=taken)})
        with pytest.raises(AddressTaken, match=rf"{taken}: .*set another `metrics\.address`"):
            async with listening(config):
                pass
