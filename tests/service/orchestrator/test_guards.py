"""Norms, copies and quarantine, from the gateway's bytes to the published weights and back."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
import tomli_w
from typer.testing import CliRunner

from cli.main import app
from common.bad_updates import NormMode, Reputation, Standing, UpdateNorm
from common.errors import FederationError
from common.ids import GatewayId, RunId
from common.plan import Rounds, ServerOptimizer, Weighting
from common.protocol import Body, RunState
from common.tls import Role
from orchestrator.config import Limits
from orchestrator.norms import NormTooLarge
from orchestrator.orchestrator import Orchestrator
from orchestrator.verdicts import CopiedUpdate, UpdateWasRefused
from tests.fakes import INITIAL, LAYOUT, FakeClock, FakeGateway, chunks, difference, plan_of, until
from tests.signing import order

RUN = RunId("r")
NAMES = ("a", "b", "c")
ROUNDS = Rounds(count=3, maximum=20, quorum=2, deadline_s=60.0, retry_pause_s=0.0)
GUARDED = {
    "rounds": ROUNDS,
    "update_norm": UpdateNorm(),
    "reputation": Reputation(watch=0.1, quarantine=0.15),  # one refused update is enough
    "weighting": Weighting.EQUAL,
    "server": ServerOptimizer(),
}


class Sender(FakeGateway):
    """A gateway whose updates are scaled."""

    scale = 1.0

    def body(self, number: int) -> bytes:
        values = np.float32(self.scale) * difference(self.name, number)
        return type(INITIAL)(LAYOUT, values).to_bytes()


@asynccontextmanager
async def serving(folder):
    """An orchestrator over what an earlier one left in the folder; who calls it."""
    url = f"sqlite:///{folder / 'journal.db'}"
    orchestrator = Orchestrator(
        folder, url, federation="acme", clock=FakeClock(), limits=Limits()
    ).start(restart_grace_s=30.0)
    try:
        gateways = (Sender(name, orchestrator.seen_by(GatewayId(name))) for name in NAMES)
        yield orchestrator, *gateways
    finally:
        await orchestrator.close()


async def begin(orchestrator, gateways, **changes) -> None:
    """Start a run that they all accept."""
    data = INITIAL.to_bytes()
    await orchestrator.operations.put_weights(Body(INITIAL.digest, len(data)), chunks(data))
    plan = plan_of(*NAMES, **{**GUARDED, **changes})
    await orchestrator.operations.start_run(*order(RUN, plan))
    for gateway in gateways:
        await gateway.accept("r")
    await reach(orchestrator, lambda s: s.round == 1)


async def reach(orchestrator, condition):
    """Return the run's first state that fulfils `condition`."""
    async for status in orchestrator.operations.watch_run(RUN):
        if condition(status):
            return status
    raise AssertionError("the run ended before that")


async def publish(orchestrator, number: int, *gateways):
    """Let gateways send their updates of a round; return the run once it is published."""
    parent = orchestrator.runs.get(RUN).run.weights
    for gateway in gateways:
        await gateway.send("r", number, parent)
    await reach(orchestrator, lambda s: s.published_round == number)
    return orchestrator.runs.get(RUN).run


def by_hand(*updates: np.ndarray) -> np.ndarray:
    """Return the initial weights after the mean of `updates`."""
    return INITIAL.values + np.mean(updates, axis=0)


def weights_of(orchestrator, digest) -> np.ndarray:
    data = orchestrator.operations._weights.get(digest)
    return np.frombuffer(data, "<f4", offset=len(LAYOUT.header))


async def test_what_is_above_the_bound_is_scaled_down_to_it(tmp_path):
    async with serving(tmp_path) as (orchestrator, a, b, c):
        fixed = UpdateNorm(mode=NormMode.FIXED, bound=0.5)
        await begin(orchestrator, (a, b, c), update_norm=fixed)
        c.scale = 10.0  # of a norm near 0.35
        run = await publish(orchestrator, 1, a, b, c)
        large = 10.0 * difference("c", 1).astype(np.float64)
        clipped = large * (0.5 / np.linalg.norm(large))
        expected = by_hand(difference("a", 1), difference("b", 1), clipped)
        assert weights_of(orchestrator, run.weights) == pytest.approx(expected, abs=1e-6)
        assert run.records.of("c").rounds_clipped == 1


async def test_the_second_round_is_bounded_by_the_first_and_refuses_ten_times_as_much(tmp_path):
    async with serving(tmp_path) as (orchestrator, a, b, c):
        await begin(orchestrator, (a, b, c))
        run = await publish(orchestrator, 1, a, b, c)
        norms = [float(np.linalg.norm(difference(name, 1).astype("f8"))) for name in NAMES]
        status = await reach(orchestrator, lambda s: s.round == 2)
        assert status.norm_bound == pytest.approx(3 * sorted(norms)[1])
        c.scale = 100.0
        with pytest.raises(NormTooLarge):
            await c.send("r", 2, run.weights)
        run = await publish(orchestrator, 2, a, b)
        assert run.memberships == {"a": 2, "b": 2, "c": 1}


@pytest.mark.parametrize("kept", [False, True])
async def test_killed_in_any_place_of_a_round_the_weights_are_the_same(tmp_path, kept):
    async def half(folder, *, crashes: bool, order=(0, 1, 2)):
        async with serving(folder) as (orchestrator, *gateways):
            await begin(orchestrator, gateways, keep_updates=kept)
            run = await publish(orchestrator, 1, *gateways)
            gateways[2].scale = 12.0
            if crashes:
                await gateways[2].send("r", 2, run.weights)
                await gateways[0].send("r", 2, run.weights)
            else:
                return (await publish(orchestrator, 2, *(gateways[n] for n in order))).weights
        async with serving(folder) as (orchestrator, *gateways):
            assert orchestrator.runs.get(RUN).run.round.norm_bound is not None
            gateways[2].scale = 12.0
            return (await publish(orchestrator, 2, *(gateways[n] for n in order))).weights

    undisturbed = await half(tmp_path / "undisturbed", crashes=False)
    for turns in ((0, 1, 2), (2, 1, 0)):
        folder = tmp_path / f"crashed{turns[0]}"
        assert await half(folder, crashes=True, order=turns) == undisturbed
    backwards = tmp_path / "backwards"
    assert await half(backwards, crashes=False, order=(2, 1, 0)) == undisturbed


async def test_a_copy_is_a_copy_of_what_is_still_awaited_too(tmp_path):
    async with serving(tmp_path) as (orchestrator, a, b, c):
        await begin(orchestrator, (a, b, c))
        await a.send("r", 1, INITIAL.digest)
    async with serving(tmp_path) as (orchestrator, a, b, c):
        thief = replace(a, name="a", client=c.client)
        with pytest.raises(CopiedUpdate):
            await thief.send("r", 1, INITIAL.digest)
    async with serving(tmp_path) as (orchestrator, a, b, c):
        with pytest.raises(UpdateWasRefused, match="copy"):
            await c.send("r", 1, INITIAL.digest)
        run = await publish(orchestrator, 1, b, a)
        assert run.memberships == {"a": 1, "b": 1}


@pytest.fixture
async def quarantined(federation, lawless):
    """Gateway c has sent what is not finite in round 1, and round 2 of three is open."""
    async with federation.serving():
        operator = federation.operator_calls = await federation.start(plan_of(*NAMES, **GUARDED))
        federation.trio = await federation.gateways(*NAMES, kind=lawless)
        for gateway in federation.trio:
            await gateway.accept("r")
        bad = np.full(LAYOUT.size, np.nan, dtype=np.float32)
        liar = replace(federation.trio[2], update=lambda *_: bad)
        with pytest.raises(FederationError):
            await liar.send("r", 1, INITIAL.digest)
        await send_round(federation, 1, 0, 1)
        await until(operator, lambda s: s.round == 2)
        yield federation


async def send_round(federation, number: int, *places: int):
    """Let some of the three send; return what they are told."""
    status = await until(federation.operator_calls, lambda s: s.round == number)
    return [await federation.trio[n].send("r", number, status.weights) for n in places]


async def test_from_quarantine_an_update_is_received_checked_and_not_counted(quarantined):
    c, a, b = await send_round(quarantined, 2, 2, 0, 1)
    assert (c.set_aside, a.set_aside, b.set_aside) == (True, False, False)
    status = await until(quarantined.operator_calls, lambda s: s.round == 3)
    assert [g.standing for g in status.gateways] == [
        Standing.GOOD,
        Standing.GOOD,
        Standing.QUARANTINE,
    ]
    assert [g.rounds_counted for g in status.gateways] == [2, 2, 0]
    assert status.gateways[2].score == pytest.approx(0.16)


async def test_an_update_that_is_set_aside_may_be_sent_again(quarantined):
    (first,) = await send_round(quarantined, 2, 2)
    (again,) = await send_round(quarantined, 2, 2)
    assert first == again
    assert again.set_aside


async def test_nobody_waits_for_what_is_not_counted(quarantined):
    await send_round(quarantined, 2, 0, 1)  # and the clock stands still
    await send_round(quarantined, 3, 0, 1)
    await until(quarantined.operator_calls, lambda s: s.state is RunState.COMPLETED)


async def test_a_person_releases_it_for_the_next_round(quarantined):
    operator = quarantined.operator_calls
    for _ in range(2):  # safe to send twice
        status = await operator.release_gateway(RUN, "c")
    assert status.gateways[2].standing is Standing.GOOD
    assert [r.set_aside for r in await send_round(quarantined, 2, 2, 0, 1)] == [True, False, False]
    assert [r.set_aside for r in await send_round(quarantined, 3, 2, 0, 1)] == [False] * 3
    status = await until(operator, lambda s: s.state is RunState.COMPLETED)
    assert [g.rounds_counted for g in status.gateways] == [3, 3, 1]


async def test_the_command_releases_it(quarantined, tmp_path):
    files = quarantined.authority.issue(Role.OPERATOR, "olga")
    tables = {"address": quarantined.address, "tls": {name: str(path) for name, path in files}}
    config = tmp_path / "operator.toml"
    config.write_text(tomli_w.dumps(tables))
    asked = ["run", "release", "r", "c", "--config", str(config), "--format", "json"]
    done = await asyncio.to_thread(CliRunner().invoke, app, asked)
    status = json.loads(done.stdout.splitlines()[-1])  # the server's log may come before
    assert [each["standing"] for each in status["gateways"]] == ["good"] * 3
    refused = await asyncio.to_thread(CliRunner().invoke, app, [*asked[:3], "d", *asked[4:]])
    assert refused.exit_code != 0


async def test_a_release_names_a_gateway_of_a_run_that_goes_on(quarantined):
    operator = quarantined.operator_calls
    with pytest.raises(FederationError, match="has no gateway 'd': `fedgate run watch r"):
        await operator.release_gateway(RUN, "d")
    with pytest.raises(FederationError, match="there is no run 'other' here"):
        await operator.release_gateway(RunId("other"), "c")
    await operator.cancel_run(RUN)
    with pytest.raises(FederationError, match="has ended"):
        await operator.release_gateway(RUN, "c")


async def test_after_a_restart_it_is_in_quarantine_still(quarantined):
    async with quarantined.serving():
        operator = await quarantined.operator()
        status = await until(operator, lambda s: s.round == 2)
        assert status.gateways[2].standing is Standing.QUARANTINE
