"""A real Prometheus scrapes a run: each query of the boards and of the alerts has an answer."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import math
import re
import shutil
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml

from common.clock import SystemClock
from common.protocol import RunState
from common.telemetry import MetricsSettings
from common.tls import Role
from gateway.metrics import METRICS_ADDRESS, measured
from gateway.workshop import Workshop
from tests.at_work import SITE, at_work, plan_for, settings
from tests.fakes import until
from tests.tiny_task import TASK

MONITORING = Path(__file__).parents[3] / "deploy" / "monitoring"
LABELS = ("no", "yes")
EVERY_S = 0.2
PATIENCE_S = 25.0  # twice, at the most
COMPARISON = re.compile(r" (?:==|<|>) (?=[\d(]|on )")

pytestmark = pytest.mark.skipif(
    not (shutil.which("prometheus") and shutil.which("promtool")),
    reason="needs Prometheus with promtool: apt-get install prometheus",
)


def promtool(*arguments: str) -> str:
    done = subprocess.run(
        ["promtool", *arguments], cwd=MONITORING, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("rules", ["alerts", "site-alerts"])
def test_alerts_fire_when_they_should_and_not_before(rules):
    assert "SUCCESS" in promtool("test", "rules", f"{rules}.test.yml")


@pytest.mark.parametrize("config", ["prometheus", "site-prometheus"])
def test_a_config_is_one_with_the_rules_that_it_names(config):
    assert "rules found" in promtool("check", "config", f"{config}.yml")


def of_boards() -> set[str]:
    """Return every query of both boards, as Grafana sends it while a minute is shown."""
    spec = importlib.util.spec_from_file_location("boards", MONITORING / "boards.py")
    script = importlib.util.module_from_spec(spec)
    sys.modules["boards"] = script
    spec.loader.exec_module(script)
    found = {query for _, _, rows in script.BOARDS.values() for query in script.queries(rows)}
    return {query.replace("$__rate_interval", "1m") for query in found}


def of_alerts() -> set[str]:
    """Return what every alert looks at: its expression as far as it compares."""
    groups = [
        group
        for rules in ("alerts.yml", "site-alerts.yml")
        for group in yaml.safe_load((MONITORING / rules).read_text())["groups"]
    ]
    expressions = [rule["expr"] for group in groups for rule in group["rules"]]
    assert all(COMPARISON.search(each) for each in expressions)
    return {COMPARISON.split(each)[0] for each in expressions}


class Prometheus:
    """A process of its own, of the configurations as shipped, over these targets."""

    def __init__(self, folder: Path, **targets: str) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
        shipped = [
            yaml.safe_load((MONITORING / name).read_text())
            for name in ("prometheus.yml", "site-prometheus.yml")
        ]
        jobs = [job for config in shipped for job in config["scrape_configs"]]
        for job in jobs:
            job["static_configs"] = [{"targets": [targets[job["job_name"].partition("-")[2]]]}]
        rules = [str(MONITORING / name) for config in shipped for name in config["rule_files"]]
        often = {"scrape_interval": f"{EVERY_S * 1000:.0f}ms", "evaluation_interval": "1s"}
        config = {"global": often, "rule_files": rules, "scrape_configs": jobs}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))

    @asynccontextmanager
    async def running(self):
        with (self.folder / "prometheus.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                "prometheus",
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                f"--web.listen-address={self.address}",
                stdout=log,
                stderr=log,
            )
        try:
            yield self
        finally:
            process.terminate()
            await process.wait()

    async def ask(self, query: str) -> list[float]:
        """Return the values that a query has now."""
        url = f"http://{self.address}/api/v1/query?{urlencode({'query': query})}"

        def get() -> dict:
            with urlopen(url, timeout=PATIENCE_S) as answer:
                return json.load(answer)

        try:
            data = (await asyncio.to_thread(get))["data"]
        except URLError:  # it begins, or has no answer: the log says why
            return []
        return [float(each["value"][1]) for each in data["result"]]

    async def without_answer(self, queries: set[str]) -> set[str]:
        """Return the queries that have no number for an answer, after a while."""
        for _ in range(round(PATIENCE_S / EVERY_S)):
            queries = {q for q in queries if not any(map(math.isfinite, await self.ask(q)))}
            if not queries:
                break
            await asyncio.sleep(EVERY_S)
        return queries


@pytest.fixture
async def watched(federation, tmp_path):
    """A Prometheus that has seen a run of three rounds, from before its beginning to its end."""
    metrics = MetricsSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"metrics": metrics})
    federation.clock = SystemClock()
    files = federation.authority.issue(Role.GATEWAY, SITE)
    state = tmp_path / "site"
    state.mkdir()
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(federation.serving())
        figures = await stack.enter_async_context(measured("127.0.0.1:0", files, state))
        of_gateway = (state / METRICS_ADDRESS).read_text()
        of_orchestrator = federation.config.metrics_address_file.read_text()
        prometheus = Prometheus(tmp_path, orchestrator=of_orchestrator, gateway=of_gateway)
        await stack.enter_async_context(prometheus.running())
        assert not await prometheus.without_answer({"fedgate_leader", "fedgate_gateway_connected"})
        plan, initial = plan_for(TASK, LABELS, units=60, rounds={"count": 3, "maximum": 3})
        operator = await federation.start(plan, initial=initial)
        workshop = Workshop(SITE, settings(state, files, LABELS), TASK, None)
        client = await federation.client(SITE, files)
        await stack.enter_async_context(at_work(workshop, client, watcher=figures))
        assert (await until(operator, lambda s: s.has_ended)).state is RunState.COMPLETED
        yield prometheus


async def test_every_query_of_the_boards_and_alerts_has_an_answer(watched):
    queries = of_boards() | of_alerts()
    assert len(queries) > 50
    assert await watched.without_answer(queries) == set()
    assert await watched.without_answer({"sum(fedgate_rounds_ended_total) == 3"}) == set()
