"""How much work the page of a long run with many gateways is for the browser that follows it.

    python -m benchmarks.page [--rounds 200] [--gateways 50]

One JSON line. An orchestrator serves the run and its page; the gateways send updates of a small
model in the same process, and every round gets a score. Chromium follows the run from its first
round to its last: for each message, `work` is the time from its arrival until the parts are in
place and the page is laid out again. `long_tasks` are those of more than 50 ms.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from benchmarks import browser
from benchmarks.machine import described
from cli import pki
from cli.operator_client import OperatorClient
from common.ids import GatewayId, RunId
from common.plan import Rounds
from common.protocol import ScoreSet
from common.tls import Role, TlsFiles
from orchestrator.config import OrchestratorConfig, WebSettings
from orchestrator.server import listening
from tests.fakes import INITIAL, FakeGateway, plan_of
from tests.signing import FEDERATION, order

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from common.plan import Plan
    from orchestrator.live_runs import LiveRun
    from orchestrator.server import Listening

RUN = RunId("long")
COUNTING = """
window.work = []; window.long = 0;
document.addEventListener('fedgate:updated', (event) => {
  document.documentElement.getBoundingClientRect();
  window.work.push(performance.now() - event.detail.begun);
});
new PerformanceObserver((list) => { window.long += list.getEntries().length; })
  .observe({ type: 'longtask' });
"""


@dataclass(frozen=True)
class Found:
    """What the browser counted."""

    work_ms: tuple[float, ...]  # of each message
    long_tasks: int

    def line(self) -> dict[str, Any]:
        """Return it as the result shows it."""
        ordered = sorted(self.work_ms)
        return {
            "messages": len(ordered),
            "work_median_ms": round(statistics.median(ordered), 2),
            "work_p99_ms": round(ordered[int(0.99 * (len(ordered) - 1))], 2),
            "work_max_ms": round(ordered[-1], 2),
            "long_tasks": self.long_tasks,
        }


async def measure(folder: Path, rounds: int, gateways: int) -> Found:
    """Follow a run in a browser from its start to its end."""
    pki.init(folder / "pki", FEDERATION)
    config = OrchestratorConfig(
        federation=FEDERATION,
        address="127.0.0.1:0",
        state=folder / "state",
        tls=_member(folder, Role.ORCHESTRATOR),
        web=WebSettings(address="127.0.0.1:0"),
    )
    names = [f"clinic-{number:02}" for number in range(1, gateways + 1)]
    each = Rounds(count=rounds, maximum=rounds, quorum=gateways, deadline_s=600.0)
    plan = plan_of(*names, rounds=each)
    async with listening(config) as server:
        operator = _member(folder, Role.OPERATOR)
        async with OperatorClient(server.address, operator) as client:
            await client.upload_weights(INITIAL.to_bytes())
            await client.start_run(*order(RUN, plan))
            link, _ = await client.create_web_link()
        following = await asyncio.to_thread(_follow, link, f"{server.page_url}/runs/{RUN}")
        try:
            await _train(server, plan)
            await asyncio.sleep(1.0)  # until the last message has come
            return await asyncio.to_thread(_counted, following)
        finally:
            await asyncio.to_thread(following.quit)


async def _train(server: Listening, plan: Plan) -> None:
    """Let every gateway accept the plan and send all of its updates."""
    runs = server.orchestrator.runs
    live = runs.get(RUN)
    sites = [FakeGateway(name, server.orchestrator.seen_by(name)) for name in sorted(plan.gateways)]
    for site in sites:
        runs.set_connected(GatewayId(site.name), is_connected=True)
        await site.accept(RUN)
    for number in range(1, plan.rounds.count + 1):
        await _opened(live, number)
        for site in sites:
            await site.send(RUN, number, live.run.weights)
            await asyncio.sleep(0)
        await _published(live, number)
        f1 = 0.8 - 0.5 * 0.98**number  # drawn as any other figure would be
        scores = ScoreSet(number, "dev", live.run.weights, f1, f1, f1, 400)
        server.orchestrator.operations.record_scores(RUN, scores)


async def _opened(live: LiveRun, number: int) -> None:
    while live.run.round is None or live.run.round.number < number:
        await live.changed.next.wait()


async def _published(live: LiveRun, number: int) -> None:
    while live.run.published < number:
        await live.changed.next.wait()


def _follow(link: str, page: str) -> Chrome:
    started = browser.started(1280, 1000)
    browser.sign_in(started, link)
    started.get(page)
    started.execute_script(COUNTING)
    return started


def _counted(following: Chrome) -> Found:
    work, long_tasks = following.execute_script("return [window.work, window.long]")
    return Found(tuple(work), long_tasks)


def _member(folder: Path, role: Role) -> TlsFiles:
    out = folder / "keys" / role
    pki.issue(folder / "pki", role=role, name=str(role), out=out)
    return TlsFiles(authority=out / "ca.pem", certificate=out / "cert.pem", key=out / "key.pem")


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of the run.")] = 200,
    gateways: Annotated[int, typer.Option(help="Gateways in each.")] = 50,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(Path(folder), rounds, gateways))
    line = {"benchmark": "page", "rounds": rounds, "gateways": gateways, **found.line()}
    print(json.dumps({**line, **described()}), flush=True)


if __name__ == "__main__":
    typer.run(main)
