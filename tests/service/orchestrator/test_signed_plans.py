"""An orchestrator that was broken into: it can stop a gateway, and neither steer nor spend.

Its server, its stores and the gateway are real; what it was told to run is changed under it.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import tomli_w
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from cli.main import app
from cli.operator_client import OperatorClient
from cli.sign_in import SignIn
from cli.signatures import verified
from common import wire
from common.acceptance import Acceptance, Signer, check
from common.errors import RequestError
from common.ids import GatewayId, RunId
from common.plan import Plan
from common.protocol import Effective, RefusalReason, RunState, RunStatus
from common.signatures import PlanSignature, SignedAcceptance
from common.tls import Role, TlsFiles
from common.weights import Weights
from common.wire import plan_from_bytes, plan_id, plan_to_bytes
from gateway.workshop import Workshop
from orchestrator.operations import acceptances
from protos.federation.v1 import operator_pb2
from tests.at_work import SITE, at_work, is_settled, plan_for, refusal, settings
from tests.certificates import Authority
from tests.fakes import EFFECTIVE, INITIAL, VERSIONS, plan_of, until
from tests.signing import PUBLIC_KEY, order, signed
from tests.tiny_task import TinyTask

LABELS = ("no", "yes")
PATIENCE_S = 60.0
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


class Watched(TinyTask):
    """Counts how often its data are read."""

    reads = 0

    def read(self, data, labels, cache):
        self.reads += 1
        return super().read(data, labels, cache)


@dataclass
class Site:
    """One gateway, whose orchestrator is in others' hands."""

    federation: object
    server: object
    tls: TlsFiles
    state: Path
    task: Watched = field(default_factory=Watched)

    async def order(self, run: str, **changes: object) -> bytes:
        """Have the operator start a run; return its plan's bytes."""
        rounds = {"count": 1, "maximum": 1}
        plan, initial = plan_for(self.task, LABELS, units=60, rounds=rounds, **changes)
        self.operator = await self.federation.start(plan, run, initial)
        return plan_to_bytes(plan)

    def swap(self, run: str, plan: bytes, signature: PlanSignature | None) -> None:
        """Have the orchestrator take this for what it was told to run."""
        live = self.server.orchestrator.runs.get(RunId(run))
        live.plan_bytes = plan
        live.run = replace(
            live.run,
            plan=plan_from_bytes(plan),
            plan_digest=plan_id(plan),
            plan_signature=signature,
        )

    @asynccontextmanager
    async def working(self):
        workshop = Workshop(SITE, settings(self.state, self.tls, LABELS), self.task, None)
        client = await self.federation.client(SITE, self.tls)
        async with at_work(workshop, client), asyncio.timeout(PATIENCE_S):
            yield

    async def takes_part(self, run: str) -> RunStatus:
        """Work until the run has ended, or its plan was refused."""
        async with self.working():
            return await until(self.operator, is_settled, run)

    async def takes_part_to_the_end(self, run: str) -> RunStatus:
        """Work until the run has ended, whatever was said before."""
        async with self.working():
            return await until(self.operator, lambda status: status.has_ended, run)

    def booked(self) -> list[tuple[str, int]]:
        with closing(sqlite3.connect(self.state / "ledger.sqlite")) as ledger:
            charges = ledger.execute("select run, round from charges").fetchall()
            assert len(ledger.execute("select * from records").fetchall()) == len(charges)
        return charges


@pytest.fixture
async def site(federation, tmp_path):
    async with federation.serving() as server:
        tls = federation.authority.issue(Role.GATEWAY, SITE)
        yield Site(federation, server, tls, tmp_path / "gateway")


async def test_a_run_that_was_ordered_by_a_trusted_key_is_trained(site):
    await site.order("first")
    ended = await site.takes_part("first")
    assert (ended.state, refusal(ended)) == (RunState.COMPLETED, None)
    assert ended.plan_signature.public_key == PUBLIC_KEY
    assert (site.task.reads, site.booked()) == (1, [("first", 1)])


def weaker(plan: bytes) -> bytes:
    """Return the plan with less noise, as somebody would want it who is after the data."""
    asked = plan_from_bytes(plan)
    how = asked.hyperparameters.model_copy(update={"noise_multiplier": 15.0})
    return plan_to_bytes(Plan.model_validate({**asked.model_dump(), "hyperparameters": how}))


STEERED = {
    "another plan under the old signature": lambda plan: (weaker(plan), signed("first", plan)),
    "another plan without a signature": lambda plan: (weaker(plan), None),
    "another plan with a key of its own": lambda plan: (
        weaker(plan),
        signed("first", weaker(plan), key=STRANGER),
    ),
    "another plan with a key of its own that is given the trusted one's name": lambda plan: (
        weaker(plan),
        replace(signed("first", weaker(plan), key=STRANGER), public_key=PUBLIC_KEY),
    ),
    "the plan of an earlier run": lambda plan: (plan, signed("earlier", plan)),
    "the plan of an earlier run under this one's name": lambda plan: (
        plan,
        replace(signed("earlier", plan), run_id="first"),
    ),
    "the plan of another federation": lambda plan: (plan, signed("first", plan, "others")),
    "an empty signature": lambda plan: (plan, replace(signed("first", plan), signature="")),
}


@pytest.mark.parametrize("steer", STEERED.values(), ids=STEERED)
async def test_what_the_operator_did_not_order_reads_no_data_and_charges_nothing(site, steer):
    plan = await site.order("first")
    site.swap("first", *steer(plan))
    ended = await site.takes_part("first")
    assert refusal(ended) in {RefusalReason.PLAN_UNTRUSTED, RefusalReason.PLAN_SIGNATURE}
    assert (site.task.reads, site.booked()) == (0, [])


async def test_a_plan_is_not_even_parsed_before_its_signer_is_known(site):
    plan = await site.order("first")
    live = site.server.orchestrator.runs.get(RunId("first"))
    live.plan_bytes = b"no plan at all"
    live.run = replace(live.run, plan_digest=plan_id(live.plan_bytes))
    assert plan_id(plan) != live.run.plan_digest
    ended = await site.takes_part("first")
    assert refusal(ended) is RefusalReason.PLAN_SIGNATURE
    assert site.task.reads == 0


async def test_a_second_plan_for_a_run_is_refused_even_if_the_operator_has_signed_both(site):
    await site.order("first", name="one")
    async with site.working():
        await until(site.operator, lambda status: status.gateways[0].answer is not None, "first")
    other, _ = plan_for(site.task, LABELS, units=60, rounds={"count": 1, "maximum": 1}, name="two")
    second = plan_to_bytes(other)
    site.swap("first", second, signed("first", second))
    live = site.server.orchestrator.runs.get(RunId("first"))
    live.run = replace(live.run, answers={}, state=RunState.GATHERING, round=None)
    booked, site.task.reads = site.booked(), 0
    sites = Workshop(SITE, settings(site.state, site.tls, LABELS), site.task, None)
    verdict = sites.review(RunId("first"), other, plan_id(second))
    sites.close()
    assert verdict.reason is RefusalReason.EQUIVOCATION
    assert "accepted under plan" in verdict.sentence
    assert (site.task.reads, site.booked()) == (0, booked)


async def test_the_first_round_begins_with_what_the_operator_has_signed(site):
    plan = await site.order("first")
    live = site.server.orchestrator.runs.get(RunId("first"))
    other = plan_for(site.task, LABELS, units=60, rounds={"count": 1, "maximum": 1})[1]
    moved = Weights(other.layout, other.values + 1)
    await site.operator.upload_weights(moved.to_bytes())
    live.run = replace(live.run, weights=moved.digest)
    assert plan_id(plan) == live.run.plan_digest
    ended = await site.takes_part_to_the_end("first")
    assert ended.state is RunState.FAILED
    assert site.booked() == []


# the orchestrator's own look, so that an honest mistake is known at once


async def refused_at_once(federation, plan: bytes, signature, says: str, kind=RequestError) -> None:
    operator = await federation.operator()
    await operator.upload_weights(INITIAL.to_bytes())
    with pytest.raises(kind, match=says):
        await operator.start_run(RunId("r"), plan, signature)
    assert await operator.list_runs() == ()


PLAN = plan_to_bytes(plan_of("a"))


async def test_a_run_whose_signature_is_for_something_else_is_not_started(federation):
    async with federation.serving():
        for signature, says in (
            (signed("s", PLAN), "signed for run 's'"),
            (signed("r", PLAN, "others"), "signed for federation 'others'"),
            (signed("r", PLAN + b"\0"), "was changed on the way"),
            (replace(signed("r", PLAN), signature="ab" * 32), "has 128 lower-case"),
        ):
            await refused_at_once(federation, PLAN, signature, says)


async def test_a_run_that_nobody_has_signed_is_not_started(federation):
    async with federation.serving():
        operator = await federation.operator()
        request = operator_pb2.StartRunRequest(run_id="r", plan=PLAN)
        with pytest.raises(RequestError, match="not signed"), operator._our_errors():
            await operator._stub.StartRun(request)


async def test_who_ordered_a_run_outlives_the_orchestrator(federation):
    async with federation.serving():
        operator = await federation.start(plan_of("a"))
        before, _ = await operator.run(RunId("r"))
    async with federation.serving():
        operator = await federation.operator()
        after, _ = await operator.run(RunId("r"))
        (listed,) = await operator.list_runs()
        config = await (await federation.client("a")).get_config(RunId("r"))
    expected = signed("r", PLAN)
    assert [each.plan_signature for each in (before, after, listed)] == [expected] * 3
    assert config.signature == expected


async def test_a_run_of_before_plans_were_signed_is_signed_by_starting_it_again(site):
    plan = await site.order("first")
    site.swap("first", plan, None)
    with sqlite3.connect(site.federation.config.state / "journal.db") as journal:
        journal.execute("update runs set plan_signature = null")
    before, _ = await site.operator.run(RunId("first"))
    await site.operator.start_run(*order("first", plan))
    await site.operator.start_run(RunId("first"), plan, signed("first", plan, key=STRANGER))
    ended = await site.takes_part_to_the_end("first")
    assert before.plan_signature is None
    assert (ended.state, ended.plan_signature) == (RunState.COMPLETED, signed("first", plan))
    with sqlite3.connect(site.federation.config.state / "journal.db") as journal:
        ((kept,),) = journal.execute("select plan_signature from runs").fetchall()
    assert PUBLIC_KEY in kept


# what gateways accept is on record under their own keys


async def test_an_acceptance_can_be_proven_after_a_restart(federation):
    async with federation.serving():
        await federation.start(plan_of("a"))
        (a,) = await federation.gateways("a")
        await a.client.register(VERSIONS)
        await a.accept("r")
    async with federation.serving() as server:
        stored = server.orchestrator.runs._journal.run(RunId("r"))
        ((name, proof),) = acceptances(stored.events).items()
    said = Acceptance("acme", GatewayId("a"), RunId("r"), stored.plan_digest, EFFECTIVE)
    assert name == "a"
    check(proof, said)


async def test_what_is_not_signed_by_the_caller_for_these_very_values_is_not_recorded(
    federation, lawless
):
    run, digest = RunId("r"), plan_id(PLAN)
    quiet = EFFECTIVE.hyperparameters.model_copy(update={"noise_multiplier": 9.0})
    async with federation.serving():
        operator = await federation.start(plan_of("a"))
        a, b = await federation.gateways("a", "b", kind=lawless)
        mine, theirs = a.client._signer, b.client._signer
        await a.client.register(VERSIONS)
        tries = {
            "accepted without a signature": b"",
            "has not signed what it sends": mine.accept(run, digest, Effective(quiet)),
            "key of its certificate": theirs.accept(run, digest, EFFECTIVE),
            "is said to have accepted": mine.accept(RunId("s"), digest, EFFECTIVE),
            "that is not its word": mine.accept(run, plan_id(b"other"), EFFECTIVE),
            "signs the very values": mine.accept(run, digest, EFFECTIVE)[:-1],
        }
        for says, signature in tries.items():
            request = wire.answer_to_proto(run, digest, EFFECTIVE, signature)
            with pytest.raises(RequestError, match=says), a.client._our_errors():
                await a.client._stub.AcceptPlan(request)
        status, _ = await operator.run(run)
        assert status.gateways[0].answer is None
        await a.accept("r")
        status, _ = await operator.run(run)
        assert status.gateways[0].answer == EFFECTIVE


@pytest.fixture
async def accepted(federation):
    """Yield what is said and shown of a run that one gateway has accepted, to an auditor."""
    async with federation.serving():
        operator = await federation.start(plan_of("a", "b"))
        (a,) = await federation.gateways("a")
        await a.client.register(VERSIONS)
        await a.accept("r")
        status, _ = await operator.run(RunId("r"))
        files = federation.authority.issue(Role.AUDITOR, "ada")
        async with OperatorClient(federation.address, files) as auditor:
            shown = await auditor.signatures(RunId("r"))
            yield status, shown, SignIn(**files.model_dump())


async def test_an_auditor_can_prove_who_ordered_a_run_and_what_was_accepted(accepted):
    status, shown, files = accepted
    findings = verified(status, shown, files)
    assert findings.plan_signed_by == PUBLIC_KEY
    assert findings.accepted == {"a": EFFECTIVE}
    assert findings.problems == []


async def test_an_orchestrator_that_says_something_else_is_found_out(accepted, tmp_path):
    status, shown, files = accepted
    quiet = EFFECTIVE.hyperparameters.model_copy(update={"noise_multiplier": 9.0})
    a, b = status.gateways
    proof = shown.acceptances["a"]
    foreign = Authority.make(tmp_path / "foreign").issue(Role.GATEWAY, "a")
    forged = Signer.of(foreign).accept(RunId("r"), status.plan_digest, EFFECTIVE)
    own = SignedAcceptance(proof.statement, forged.hex(), foreign.certificate.read_text())
    lies = {
        "other values": (replace(status, gateways=(replace(a, answer=Effective(quiet)),)), shown),
        "has accepted": (replace(status, gateways=(a, replace(b, answer=EFFECTIVE))), shown),
        "has not signed": (
            status,
            replace(shown, acceptances={"a": replace(proof, signature="ab" * 70)}),
        ),
        "nothing shows that": (status, replace(shown, acceptances={})),
        "not by the authority": (status, replace(shown, acceptances={"a": own})),
        "the plan that is shown is": (status, replace(shown, plan=shown.plan + b"\0")),
        "of before plans were signed": (status, replace(shown, plan_signature=None)),
        "was changed on the way": (
            status,
            replace(shown, plan_signature=replace(shown.plan_signature, public_key="1" * 64)),
        ),
        "signed for run 's'": (
            status,
            replace(shown, plan_signature=signed("s", shown.plan)),
        ),
    }
    for says, (said, given) in lies.items():
        assert any(says in problem for problem in verified(said, given, files).problems), says


async def test_the_command_prints_what_is_proven_and_ends_with_1_where_something_is_not(
    federation, tmp_path
):
    files = federation.authority.issue(Role.AUDITOR, "ada")
    config = tmp_path / "auditor.toml"
    command = ["run", "signatures", "r", "--config", str(config), "--format", "json"]
    async with federation.serving() as server:
        await federation.start(plan_of("a"))
        tables = {"address": federation.address, "tls": {name: str(path) for name, path in files}}
        config.write_text(tomli_w.dumps(tables))
        sound = await asyncio.to_thread(CliRunner().invoke, app, command)
        live = server.orchestrator.runs.get(RunId("r"))
        live.run = replace(live.run, plan_signature=None)
        unsound = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert (sound.exit_code, unsound.exit_code) == (0, 1)
    findings = json.loads(sound.stdout.splitlines()[-1])["findings"]
    assert (findings["plan_signed_by"], findings["problems"]) == (PUBLIC_KEY, [])
