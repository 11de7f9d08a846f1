"""A federation with a page, those who look at it, and a run in which gateways differ."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ssl import SSLContext

import httpx2

from cli.operator_client import OperatorClient
from common.hyperparameters import Bounds, Overrides, Range
from common.ids import RunId, WeightsId
from common.plan import Plan, Rounds
from common.protocol import Effective, Refusal, RefusalReason, ScoreSet
from common.tls import Role
from orchestrator.live_runs import LiveRun
from orchestrator.server import Listening
from tests.fakes import FakeGateway, plan_of

RUN = RunId("spring")
SITES = ("birch-clinic", "cedar-hospital", "elm-practice", "oak-infirmary")
REFUSING = "willow-centre"
PATIENCE_S = 20.0  # of those who look, on machines that are busy with other tests


def varied_plan(rounds: int = 6, *, quorum: int = 3) -> Plan:
    """Return a plan of five gateways, one of them with a profile."""
    return plan_of(
        *SITES,
        REFUSING,
        rounds=Rounds(count=rounds, maximum=rounds + 2, quorum=quorum, deadline_s=60.0),
        profiles={SITES[1]: Overrides(local_steps=3)},
        bounds=Bounds(learning_rate=Range(minimum=0.01, maximum=1.0)),
    )


def effective(plan: Plan, gateway: str) -> Effective:
    """Return what a site trains with: one of them has a value of its own."""
    given = plan.assigned(gateway)
    if gateway != SITES[0]:
        return Effective(given)
    return Effective(given.model_copy(update={"learning_rate": 0.05}))


def refusal() -> Refusal:
    return Refusal(RefusalReason.EPSILON_BUDGET, "privacy.target_epsilon")


def score(number: int, weights: WeightsId, f1: float, split: str = "dev") -> ScoreSet:
    return ScoreSet(number, split, weights, f1, f1 + 0.02, f1 - 0.02, 400)


@dataclass
class Visitor:
    """A browser without a window: it keeps cookies, and says where its forms come from."""

    http: httpx2.AsyncClient
    url: str

    async def get(self, path: str) -> httpx2.Response:
        return await self.http.get(path)

    async def post(self, path: str, origin: str | None = "", **fields: str) -> httpx2.Response:
        """Send a form from a page of ours, or from `origin`; None: it is not said from where."""
        headers = {} if origin is None else {"origin": origin or self.url}
        return await self.http.post(path, data=fields, headers=headers)

    async def csrf(self) -> str:
        """Return what the forms of this session hold."""
        return (await self.get("/")).text.split('name="csrf" value="')[1].split('"')[0]

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """Lend the parts that are sent, as HTML."""
        async with self.http.stream("GET", path) as response:
            assert response.status_code == 200, await response.aread()
            yield _parts(response)


async def _parts(response: httpx2.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield "".join(json.loads(line.removeprefix("data: ")))


@asynccontextmanager
async def visitor(url: str, verify: SSLContext | bool = True) -> AsyncIterator[Visitor]:  # noqa: FBT001, FBT002 - httpx2's own
    """Lend somebody who is not signed in."""
    async with httpx2.AsyncClient(base_url=url, verify=verify, timeout=PATIENCE_S) as http:
        yield Visitor(http, url)


async def link_of(federation, role: Role, name: str) -> str:
    """Return a link for a member."""
    files = federation.authority.issue(role, name)
    async with OperatorClient(federation.address, files) as client:
        return (await client.create_web_link())[0]


@asynccontextmanager
async def signed_in(
    federation, server: Listening, role: Role = Role.OPERATOR, name: str = "olga"
) -> AsyncIterator[Visitor]:
    """Lend somebody who has signed in with a link."""
    link = await link_of(federation, role, name)
    async with visitor(server.page_url) as one:
        answer = await one.post("/sign-in", token=token_in(link))
        assert answer.status_code == 303, answer.text
        yield one


def token_in(link: str) -> str:
    return link.partition("token=")[2]


async def answered(gateways: list[FakeGateway], plan: Plan) -> None:
    """Let every gateway answer the plan of the run; one refuses."""
    for each in gateways:
        config = await each.client.get_config(RUN)
        is_refusing = each.name == REFUSING
        answer = refusal() if is_refusing else effective(plan, each.name)
        await each.client.accept_plan(RUN, config.plan_digest, answer)


async def update(gateway: FakeGateway, live: LiveRun) -> None:
    """Have a gateway send its update for the round that is open."""
    state = live.run.round
    await gateway.send(RUN, state.number, state.parent)


async def in_state(live: LiveRun, condition) -> None:
    """Return once a run fulfils `condition`."""
    async with asyncio.timeout(10):
        while True:
            rung = live.changed.next
            if condition(live.run):
                return
            await rung.wait()
