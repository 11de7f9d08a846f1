"""A round is one trace: of the orchestrator in its collector, of each gateway in its site's own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from common.clock import SystemClock
from common.ids import GatewayId
from common.plan import Rounds
from common.protocol import RunState
from common.telemetry import TraceSettings, TracesNeedTheExtra
from common.tls import Role, TlsFiles
from gateway.client import GrpcClient
from gateway.config import GatewayConfig
from gateway.traces import traced
from gateway.workshop import Workshop
from tasks.task import DataConfig
from tests.at_work import at_work, plan_for, settings
from tests.collecting import Collector
from tests.fakes import INITIAL, plan_of, until
from tests.tapping import Tap, encodings, header_strings, hits
from tests.tiny_task import TASK, TinyTask

SITES = tuple(map(GatewayId, ("alder", "birch", "cedar")))
LABELS = ("no", "yes")
ROUNDS = 2
SPECIMENS = 3  # of the tiny task: its model is checked on them before any round
QUOTED = "what the data say"


class Breaking(TinyTask):
    """Its loss fails on any batch of the data, and quotes it."""

    def loss(self, model, batch):
        if len(batch[0]) > SPECIMENS:
            raise ValueError(QUOTED)
        return super().loss(model, batch)


class Lab:
    """An orchestrator with its collector, and three sites with theirs, each behind a tap."""

    def __init__(self, federation, folder: Path, stack: AsyncExitStack) -> None:
        self.federation, self.folder, self.stack = federation, folder, stack
        self.taps: list[Tap] = []

    async def run(self, of_sites: Collector, task=TASK) -> RunState:
        """Return how a run of two rounds with the three sites ended; all spans are sent then."""
        units = [{"gateway": site, "declared_units": 60} for site in SITES]
        many = {"count": ROUNDS, "maximum": ROUNDS, "quorum": len(SITES)}
        plan, initial = plan_for(TASK, LABELS, units=60, rounds=many, participants=units)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.federation.serving())
            operator = await self.federation.start(plan, initial=initial)
            for site in SITES:
                await self._at_work(site, of_sites, task, stack)
            return (await until(operator, lambda status: status.has_ended)).state

    async def _at_work(self, site, collector, task, stack: AsyncExitStack) -> None:
        files = self.federation.authority.issue(Role.GATEWAY, site)
        listens_as = self.federation.authority.issue(Role.ORCHESTRATOR, "orchestrator")
        tap = await stack.enter_async_context(Tap(self.federation.address, listens_as, files))
        self.taps.append(tap)
        client = await stack.enter_async_context(GrpcClient(tap.address, files))
        traces = await stack.enter_async_context(
            traced(TraceSettings(endpoint=collector.endpoint), site)
        )
        data = DataConfig(corpus="points", site=site)
        config = settings(self.folder / site, files, LABELS, data=data)
        workshop = Workshop(site, config, task, None)
        await stack.enter_async_context(at_work(workshop, client, watcher=traces))


@pytest.fixture
async def of_orchestrator():
    async with Collector() as collector:
        yield collector


@pytest.fixture
async def of_sites():
    async with Collector() as collector:
        yield collector


@pytest.fixture
async def lab(federation, tmp_path, of_orchestrator):
    traces = TraceSettings(endpoint=of_orchestrator.endpoint)
    federation.config = federation.config.model_copy(update={"traces": traces})
    federation.clock = SystemClock()
    async with AsyncExitStack() as stack:
        yield Lab(federation, tmp_path, stack)


async def test_a_round_is_one_trace_over_the_orchestrator_and_three_gateways(
    lab, of_orchestrator, of_sites
):
    assert await lab.run(of_sites) is RunState.COMPLETED
    rounds = {span.attributes["fedgate.round"]: span for span in of_orchestrator.named("round")}
    assert set(rounds) == {1, 2}
    assert rounds[1].trace != rounds[2].trace
    for number, root in rounds.items():
        ours = [span for span in of_sites.named("gateway round") if span.trace == root.trace]
        assert sorted(span.process for span in ours) == list(SITES)
        assert {span.parent for span in ours} == {root.span}
        assert {span.attributes["fedgate.round"] for span in ours} == {number}
        assert {span.attributes["fedgate.outcome"] for span in ours} == {"counted"}
        for phase in ("gateway fetch", "gateway train", "gateway send"):
            spans = [span for span in of_sites.named(phase) if span.trace == root.trace]
            assert {span.parent for span in spans} == {span.span for span in ours}
        phases = [span for span in of_orchestrator.spans if span.parent == root.span]
        assert {span.name for span in phases} == {"round collecting", "round aggregating"}
        assert root.attributes["fedgate.outcome"] == "published"
        assert root.events == ["UpdateAccepted"] * len(SITES)


async def test_spans_go_to_the_collector_of_their_own_side_alone(lab, of_orchestrator, of_sites):
    await lab.run(of_sites)
    assert {span.service for span in of_orchestrator.spans} == {"fedgate-orchestrator"}
    assert {span.service for span in of_sites.spans} == {"fedgate-gateway"}


async def test_a_gateway_sends_the_orchestrator_nothing_of_a_trace(lab, of_sites):
    await lab.run(of_sites)
    sent = [raw for tap in lab.taps for raw in tap.connections()]
    assert len(sent) >= len(SITES)
    for name in {span.trace for span in of_sites.spans} | {span.span for span in of_sites.spans}:
        needles = {**encodings(name), "raw": bytes.fromhex(name)}
        assert hits(sent, needles) == set()
    spelled = {text.lower() for raw in sent for _, text in header_strings(raw)}
    assert not {text for text in spelled if b"trace" in text or b"baggage" in text}
    assert hits(sent, {each: each.encode() for each in ("traceparent", "tracestate")}) == set()


async def test_of_an_error_nothing_is_told_but_that_there_was_one(lab, of_sites):
    assert await lab.run(of_sites, Breaking()) is RunState.FAILED
    outcomes = {span.attributes.get("fedgate.outcome") for span in of_sites.named("gateway round")}
    assert outcomes - {None} == {"declined"}  # none: the round was over before it was said
    assert not any(QUOTED.encode() in each for each in of_sites.received)


async def test_a_span_says_nothing_of_units_batches_losses_or_budgets(lab, of_sites):
    await lab.run(of_sites)
    said = {name for span in of_sites.spans for name in span.attributes}
    named = ("run", "round", "outcome", "fetch_bytes", "send_bytes")
    assert said == {f"fedgate.{name}" for name in named}


async def test_a_round_that_goes_on_after_a_restart_keeps_its_trace(lab, of_orchestrator):
    rounds = Rounds(count=1, maximum=1, quorum=1, deadline_s=60.0)
    async with lab.federation.serving():
        operator = await lab.federation.start(plan_of("a", rounds=rounds))
        (a,) = await lab.federation.gateways("a")
        await a.accept("r")
    async with lab.federation.serving():
        (a,) = await lab.federation.gateways("a")
        await a.send("r", 1, INITIAL.digest)
        operator = await lab.federation.operator()
        await until(operator, lambda status: status.has_ended)
    begun, ended = of_orchestrator.named("round")
    assert (begun.trace, begun.span) == (ended.trace, ended.span)
    assert "fedgate.outcome" not in begun.attributes
    assert ended.attributes["fedgate.outcome"] == "published"


async def test_a_run_that_is_cancelled_ends_its_rounds_span(lab, of_orchestrator):
    async with lab.federation.serving():
        operator = await lab.federation.start(plan_of("a"))
        (a,) = await lab.federation.gateways("a")
        await a.accept("r")
        await operator.cancel_run("r")
    (span,) = of_orchestrator.named("round")
    assert span.attributes["fedgate.outcome"] == "abandoned"


async def test_a_collector_that_is_away_is_one_event_of_the_log(lab, of_sites):
    gone = TraceSettings(endpoint=of_sites.endpoint)
    await of_sites.__aexit__()
    with capture_logs() as logged:
        async with traced(gone, SITES[0]) as traces:
            with traces._span("gateway train"):
                pass
    assert {each["event"] for each in logged} == {"tracing", "traces_not_sent"}


async def test_an_authority_that_cannot_be_read_is_said(federation, tmp_path):
    traces = TraceSettings(endpoint="https://collector:4317", authority=tmp_path / "none.pem")
    federation.config = federation.config.model_copy(update={"traces": traces})
    with pytest.raises(Exception, match=r"none\.pem"):
        async with federation.serving():
            pass


@pytest.mark.parametrize(
    "endpoint", ["collector:4317", "http://collector", "grpc://a:1", "http://user:word@a:1"]
)
def test_an_endpoint_is_a_url_with_a_port(endpoint):
    with pytest.raises(ValidationError, match="endpoint"):
        TraceSettings(endpoint=endpoint)


@pytest.mark.parametrize("addresses", ["hub:8443", ("away:8443", "Hub:8443")])
def test_a_gateway_cannot_trace_to_its_orchestrator(tmp_path, addresses):
    files = TlsFiles(authority=tmp_path, certificate=tmp_path, key=tmp_path)
    given = dict(settings(tmp_path, files, LABELS))
    traces = TraceSettings(endpoint="https://hub:8443")
    with pytest.raises(ValidationError, match="a collector of its own site, or nowhere"):
        GatewayConfig(**given | {"address": addresses, "traces": traces})


async def test_without_the_extra_the_settings_are_refused(federation, monkeypatch):
    monkeypatch.setitem(sys.modules, "orchestrator.run_traces", None)
    traces = TraceSettings(endpoint="http://127.0.0.1:4317")
    federation.config = federation.config.model_copy(update={"traces": traces})
    with pytest.raises(TracesNeedTheExtra, match=r"pip install 'fedgate\[otel\]'"):
        async with federation.serving():
            pass


LOADED = """
import sys
import {modules}
print([name for name in sys.modules if name.startswith(("opentelemetry", "prometheus_client"))])
"""


@pytest.mark.parametrize("modules", ["orchestrator.server, cli.main", "gateway.cli, gateway.agent"])
def test_what_nobody_asks_for_is_not_loaded(modules):
    code = LOADED.format(modules=modules)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
