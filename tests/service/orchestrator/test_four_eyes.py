"""What needs two people, over the wire, in both engines and through a restart."""

from __future__ import annotations

import pytest

from cli.operator_client import OperatorClient
from common import wire
from common.audit import Action
from common.errors import ConflictError, PermissionRefused
from common.ids import RunId
from common.protocol import RunState
from common.tls import Role
from orchestrator.config import FourEyesSettings
from orchestrator.four_eyes import MOST_ASKED, REPEAT_S, NoSuchAction
from tests.fakes import INITIAL, plan_of
from tests.signing import order

WITHIN_S = 3600
RUN = RunId("r")


@pytest.fixture
def database(database_url) -> str:
    return database_url


@pytest.fixture
def guarded(federation):
    """A federation in which no one alone ends a run."""
    two = FourEyesSettings(methods=("CancelRun",), within_s=WITHIN_S)
    federation.config = federation.config.model_copy(update={"four_eyes": two})
    return federation


@pytest.fixture
async def served(guarded):
    async with guarded.serving() as guarded.server:
        await guarded.start(plan_of("a"))
        yield guarded


async def person(federation, name: str, role: Role = Role.OPERATOR) -> OperatorClient:
    files = federation.authority.issue(role, name)
    return await federation.clients.enter_async_context(OperatorClient(federation.address, files))


async def state_of(federation) -> RunState:
    return (await (await person(federation, "vera", Role.VIEWER)).run(RUN))[0].state


async def test_the_first_is_told_what_is_awaited_and_nothing_happens(served):
    olga = await person(served, "olga")
    with pytest.raises(ConflictError) as caught:
        await olga.cancel_run(RUN)
    assert str(caught.value) == (
        "CancelRun needs a second person: olga has asked for it, and it is done when somebody else "
        "gives the same command before 2030-01-01 01:00 UTC"
    )
    assert await state_of(served) is RunState.GATHERING


async def test_the_second_makes_it_happen_and_may_say_it_again(served):
    olga, otto = await person(served, "olga"), await person(served, "otto")
    with pytest.raises(ConflictError, match="olga has asked"):
        await olga.cancel_run(RUN)
    for _ in range(2):
        assert (await otto.cancel_run(RUN)).state is RunState.CANCELLED
    served.clock.advance(REPEAT_S)
    with pytest.raises(ConflictError, match="otto has asked"):
        await otto.cancel_run(RUN)


async def test_one_person_is_not_two_by_asking_again_or_with_another_certificate(served):
    for _ in range(2):
        olga = await person(served, "olga")
        with pytest.raises(ConflictError, match="olga has asked"):
            await olga.cancel_run(RUN)
    assert await state_of(served) is RunState.GATHERING


async def test_another_request_is_not_the_same(served):
    await served.start(plan_of("a"), "s")
    with pytest.raises(ConflictError, match="olga has asked"):
        await (await person(served, "olga")).cancel_run(RUN)
    with pytest.raises(ConflictError, match="otto has asked"):
        await (await person(served, "otto")).cancel_run(RunId("s"))


async def test_who_may_not_ask_alone_confirms_nothing(served):
    with pytest.raises(ConflictError, match="olga has asked"):
        await (await person(served, "olga")).cancel_run(RUN)
    with pytest.raises(PermissionRefused, match="may not call"):
        await (await person(served, "vera", Role.VIEWER)).cancel_run(RUN)
    assert await state_of(served) is RunState.GATHERING


async def test_what_nobody_confirmed_in_time_is_forgotten(served):
    with pytest.raises(ConflictError, match="olga has asked"):
        await (await person(served, "olga")).cancel_run(RUN)
    served.clock.advance(WITHIN_S)
    with pytest.raises(ConflictError, match="otto has asked"):
        await (await person(served, "otto")).cancel_run(RUN)


async def test_one_person_asks_for_so_much_and_another_can_still_confirm(served):
    olga, otto = await person(served, "olga"), await person(served, "otto")
    for number in range(MOST_ASKED):
        with pytest.raises(ConflictError, match="olga has asked"):
            await olga.cancel_run(RunId(f"r{number}"))
    with pytest.raises(ConflictError, match=f"{MOST_ASKED} requests of olga await"):
        await olga.cancel_run(RUN)
    with pytest.raises(ConflictError, match="otto has asked"):
        await otto.cancel_run(RUN)
    assert (await olga.cancel_run(RUN)).state is RunState.CANCELLED  # the second of two


async def test_who_asked_and_who_confirmed_is_on_record(served):
    olga, otto = await person(served, "olga"), await person(served, "otto")
    with pytest.raises(ConflictError, match="olga has asked"):
        await olga.cancel_run(RUN)
    await otto.cancel_run(RUN)
    records = [line.record for line in served.server.orchestrator.audit.records(0)]
    asked, confirmed = (r for r in records if r.action in {Action.ASK, Action.CONFIRM})
    olgas, ottos = "fed://acme/operator/olga", "fed://acme/operator/otto"
    assert [(asked.action, asked.actor), (confirmed.action, confirmed.actor)] == [
        (Action.ASK, olgas),
        (Action.CONFIRM, ottos),
    ]
    assert asked.facts["request"] == confirmed.facts["request"]
    assert confirmed.facts["asked_by"] == "olga"


async def test_a_restart_forgets_nothing(guarded):
    async with guarded.serving():
        await guarded.start(plan_of("a"))
        with pytest.raises(ConflictError, match="olga has asked"):
            await (await person(guarded, "olga")).cancel_run(RUN)
    async with guarded.serving():
        with pytest.raises(ConflictError, match="olga has asked"):
            await (await person(guarded, "olga")).cancel_run(RUN)
        assert (await (await person(guarded, "otto")).cancel_run(RUN)).state is RunState.CANCELLED


async def test_a_run_that_two_must_start_starts_with_the_second(federation):
    two = FourEyesSettings(methods=("StartRun",))
    federation.config = federation.config.model_copy(update={"four_eyes": two})
    plan = wire.plan_to_bytes(plan_of("a"))
    async with federation.serving():
        olga, otto = await person(federation, "olga"), await person(federation, "otto")
        await olga.upload_weights(INITIAL.to_bytes())
        with pytest.raises(ConflictError, match="StartRun needs a second person"):
            await olga.start_run(*order(RUN, plan))
        assert await otto.list_runs() == ()
        await otto.start_run(*order(RUN, plan))
        assert [run.run_id for run in await otto.list_runs()] == [RUN]


async def test_an_orchestrator_does_not_start_with_a_name_that_it_cannot_guard(federation):
    two = FourEyesSettings(methods=("Cancel",))
    federation.config = federation.config.model_copy(update={"four_eyes": two})
    with pytest.raises(NoSuchAction, match="names 'Cancel'"):
        async with federation.serving():
            pass
