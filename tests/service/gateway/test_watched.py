"""Who looks on while `fedgate-gateway run` works, as its settings say."""

from __future__ import annotations

import sys

import pytest

from common.protocol import Body, Train, UpdateKey
from common.telemetry import TraceSettings, TracesNeedTheExtra
from common.tls import Role
from gateway.cli import _watched
from gateway.config import SiteMetrics
from gateway.egress_tally import Tally
from gateway.metrics import METRICS_ADDRESS
from gateway.watching import Outcome, Phase
from tests.at_work import settings
from tests.certificates import Authority
from tests.collecting import Collector
from tests.scraping import scrape

KEY = UpdateKey("r", 1)
TRAIN = Train(1, Body("1" * 64, 100), 9.0)


@pytest.fixture
def config(tmp_path):
    files = Authority.make(tmp_path / "keys").issue(Role.GATEWAY, "a")
    (tmp_path / "state").mkdir()
    return settings(tmp_path / "state", files, ("no", "yes"))


def work(watcher) -> None:
    """Tell of one round as the agent does."""
    watcher.connected(True)
    with watcher.round(KEY, TRAIN):
        with watcher.phase(Phase.FETCH):
            pass
        watcher.moved(Phase.FETCH, 100)
        watcher.ended(Outcome.COUNTED)


async def test_metrics_and_traces_look_on_side_by_side(config):
    async with Collector() as collector:
        update = {
            "metrics": SiteMetrics(address="127.0.0.1:0"),
            "traces": TraceSettings(endpoint=collector.endpoint),
        }
        async with _watched(config.model_copy(update=update), Tally()) as watcher:
            work(watcher)
            figures = await scrape((config.state / METRICS_ADDRESS).read_text())
    assert figures("fedgate_gateway_rounds_total", outcome="counted") == 1
    assert figures("fedgate_gateway_weights_fetched_bytes_total") == 100
    (span,) = collector.named("gateway round")
    assert (span.parent, span.attributes["fedgate.outcome"]) == ("", "counted")
    assert not (config.state / METRICS_ADDRESS).exists()


async def test_without_settings_nobody_looks_on(config):
    async with _watched(config, Tally()) as watcher:
        work(watcher)
    assert list(config.state.iterdir()) == []


async def test_without_the_extra_a_collector_in_the_settings_is_refused(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "gateway.traces", None)
    traces = TraceSettings(endpoint="http://127.0.0.1:4317")
    with pytest.raises(TracesNeedTheExtra, match=r"fedgate\[otel\]"):
        async with _watched(config.model_copy(update={"traces": traces}), Tally()):
            pass
