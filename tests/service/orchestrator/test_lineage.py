"""The lineage of a run's models: signed with the round, proven later, one changed bit found."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import tomli_w
from huggingface_hub import ModelCard
from safetensors.numpy import load_file
from typer.testing import CliRunner

from cli.audit_client import AuditClient
from cli.evidence import Evidence
from cli.main import app
from cli.model_card import charged_by
from cli.model_folder import ModelUnreadable, read_model
from cli.model_proof import How, Story, prove
from cli.model_push import PushFailed
from common.accounting import epsilon
from common.audit import Action
from common.ids import RunId
from common.key_files import AlreadyThere
from common.lineage import LineageBroken, RoundStatement, sign
from common.tls import Role
from common.version import SOFTWARE_VERSION
from tests.fakes import EFFECTIVE, HYPERPARAMETERS, INITIAL, plan_of

RUN = RunId("r")


@asynccontextmanager
async def completed(federation, **changes):
    """A run of two gateways that has its model, and those who ask about it."""
    async with federation.serving() as federation.server:
        operator = await federation.start(plan_of("a", "b", **changes))
        gateways = await federation.gateways("a", "b")
        await asyncio.gather(*(gateway.follow("r") for gateway in gateways))
        files = federation.authority.issue(Role.AUDITOR, "aud")
        auditor = AuditClient(federation.address, files)
        yield operator, await federation.clients.enter_async_context(auditor)


async def proven(operator, auditor, key: str | None = None):
    status, plan = await operator.run(RUN)
    signed = await auditor.lineage(RUN)
    evidence = Evidence("acme", RUN, plan, status.plan_signature, signed)
    story = Story(evidence, status.published_round, status.model)
    return await prove(story, operator.fetch_weights, key)


async def test_a_statement_names_all_that_a_round_was_made_of(federation):
    async with completed(federation) as (operator, auditor):
        status, _ = await operator.run(RUN)
        signed = await auditor.lineage(RUN)
        log = federation.server.orchestrator.audit.records(0)
    first, *_, last, model = (each.statement for each in signed)
    assert isinstance(first, RoundStatement)
    assert (first.parent, first.plan, first.previous) == (INITIAL.digest, status.plan_digest, "")
    assert [(each.gateway, each.weight) for each in first.updates] == [("a", 100), ("b", 200)]
    assert first.total_weight == 300
    assert first.software == SOFTWARE_VERSION
    assert (model.parent, model.model) == (last.weights, status.model)
    assert model.model_sha256 == status.model_sha256
    records = [line.record for line in log]
    named = [record.facts["statement"] for record in records if "statement" in record.facts]
    assert named == [each.digest for each in signed]  # a statement that is lost is missed there
    assert [r.action for r in records].count(Action.PUBLISH_ROUND) == 3


async def test_epsilon_of_each_gateway_after_a_round_follows_from_its_statement(federation):
    async with completed(federation) as (_, auditor):
        second = (await auditor.lineage(RUN))[1].statement
    (alike,) = second.trained
    assert alike.effective == EFFECTIVE
    charged = charged_by(second)
    assert set(charged) == {"a", "b"}
    (event,) = charged["a"]
    assert event.steps == 2 * HYPERPARAMETERS.local_steps
    assert epsilon(charged["a"], second.privacy.delta).pld > 0


async def test_what_was_kept_is_made_again_bit_for_bit(federation):
    async with completed(federation, keep_updates=True) as (operator, auditor):
        proof = await proven(operator, auditor)
    assert [each.how for each in proof.rounds] == [How.REPLAYED] * 3
    assert (proof.model is not None, len(proof.model_sha256)) == (True, 64)


async def test_what_was_not_kept_is_stated_and_said_to_be(federation):
    async with completed(federation) as (operator, auditor):
        proof = await proven(operator, auditor)
    assert [each.how for each in proof.rounds] == [How.STATED] * 3


async def test_another_key_is_not_the_signers(federation):
    async with completed(federation) as (operator, auditor):
        with pytest.raises(LineageBroken, match=r"the statement of round 1.*expected is 0000"):
            await proven(operator, auditor, "0" * 64)


def flip(path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[(bit // 8) % len(data)] ^= 1 << bit % 8
    path.write_bytes(data)


async def test_one_bit_of_any_file_is_found_and_the_file_named(federation):
    async with completed(federation, keep_updates=True) as (operator, auditor):
        statements = [each.statement for each in await auditor.lineage(RUN)]
        second, model = statements[1], statements[-1]
        folder = federation.config.state / "weights"
        for digest, what in (
            (INITIAL.digest, "the initial weights"),
            (second.weights, "the weights of round 2"),
            (second.updates[1].digest, "the update of b in round 2"),
            (second.optimizer_state, "the optimiser's state after round 2"),
            (model.model, "the model"),
        ):
            whole = (folder / digest).read_bytes()
            for bit in (0, 777, 8 * len(whole) - 1):
                flip(folder / digest, bit)
                with pytest.raises(LineageBroken, match=f"{what} is the first bad one"):
                    await proven(operator, auditor)
                (folder / digest).write_bytes(whole)
        assert len((await proven(operator, auditor)).rounds) == 3


async def test_weights_that_are_not_the_mean_of_the_updates_are_found(federation):
    """The orchestrator itself has signed them: only the replay can tell."""
    async with completed(federation, keep_updates=True) as (operator, auditor):
        status, plan = await operator.run(RUN)
        signed = await auditor.lineage(RUN)
        key = federation.server.orchestrator.audit._key()
        lying = lie(signed, key, INITIAL)
        evidence = Evidence("acme", RUN, plan, status.plan_signature, lying)
        story = Story(evidence, status.published_round, None)
        with pytest.raises(LineageBroken, match=r"the weights of round 1 .*made again"):
            await prove(story, operator.fetch_weights)


def lie(signed, key, weights):
    """Return a lineage of which the first round published other weights."""
    sha256 = hashlib.sha256(weights.to_bytes()).hexdigest()
    found, before = [], ""
    for each in signed[:-1]:
        statement = replace(each.statement, previous=before)
        if statement.round == 1:
            statement = replace(statement, weights=weights.digest, weights_sha256=sha256)
        if statement.round == 2:
            statement = replace(statement, parent=weights.digest)
        found.append(sign(key, statement))
        before = found[-1].digest
    return tuple(found)


async def test_a_restart_goes_on_with_the_lineage(federation):
    plan = plan_of("a")
    async with federation.serving():
        await federation.start(plan)
        (gateway,) = await federation.gateways("a")
        await gateway.accept("r")
        await gateway.send("r", 1, INITIAL.digest)
    async with federation.serving():
        (gateway,) = await federation.gateways("a")
        await gateway.follow("r")
        operator = await federation.operator()
        files = federation.authority.issue(Role.AUDITOR, "aud")
        auditor = await federation.clients.enter_async_context(
            AuditClient(federation.address, files)
        )
        proof = await proven(operator, auditor)
    assert [each.round for each in proof.rounds] == [1, 2, 3]


@pytest.fixture
async def commands(federation, tmp_path):
    """Run `fedgate model` as an operator, over a completed run whose updates were kept."""
    async with completed(federation, keep_updates=True):
        files = federation.authority.issue(Role.OPERATOR, "olga")
        settings = tmp_path / "operator.toml"
        tls = {name: str(path) for name, path in files}
        settings.write_text(tomli_w.dumps({"address": federation.address, "tls": tls}))

        async def command(*words: str, config: bool = True):
            arguments = ["model", *words, *(["--config", str(settings)] if config else [])]
            return await asyncio.to_thread(CliRunner().invoke, app, arguments)

        yield command


async def test_the_commands_prove_a_model_and_print_its_card(commands, tmp_path):
    folder = tmp_path / "model"
    assert (await commands("export", "r", "--out", str(folder))).exit_code == 0
    done = await commands("verify", "r", "--model", str(folder), "--format", "json")
    proof = json.loads(done.stdout.splitlines()[-1])
    assert [each["how"] for each in proof["rounds"]] == ["replayed"] * 3
    alone = await commands("verify", "--model", str(folder))
    assert f"the one that {proof['public_key']} has signed" in alone.output
    page = (await commands("card", "--model", str(folder), config=False)).output
    _, card = read_model(folder)
    assert card.lineage is not None
    for said in (
        card.sha256,
        card.lineage.public_key,
        "| a | 100 | 3 of 3 |",
        "unit is the example",
    ):
        assert said in page
    told = await commands("card", "--model", str(folder), "--format", "json", config=False)
    assert json.loads(told.stdout.splitlines()[-1])["sha256"] == card.sha256


async def test_a_model_in_the_hubs_layout_is_read_by_its_library_and_still_proven(
    commands, tmp_path
):
    folder, hub = tmp_path / "model", tmp_path / "hub"
    assert (await commands("export", "r", "--out", str(folder))).exit_code == 0
    words = ("push", str(hub), "--model", str(folder), "--license", "apache-2.0")
    done = await commands(*words, "--format", "json", config=False)
    assert done.exit_code == 0, done.exception
    card = ModelCard.load(hub / "README.md")
    assert (card.data.library_name, card.data.license) == ("fedgate", "apache-2.0")
    assert {"federated-learning", "differential-privacy"} <= set(card.data.tags)
    assert card.content.count("## Privacy") == 1
    weights = load_file(hub / "model.safetensors")
    assert sorted(weights) == sorted(spec.name for spec in INITIAL.layout.tensors)
    config = json.loads((hub / "config.json").read_text())
    assert (config["model_type"], config["task"]["name"]) == ("fedgate-toy", "toy")
    proven = await commands("verify", "--model", str(hub))
    assert proven.exit_code == 0, proven.exception
    again = await commands(*words, config=False)
    assert isinstance(again.exception, AlreadyThere)
    below = str(folder / "model.json" / "hub")  # a file is no folder
    nowhere = await commands("push", below, "--model", str(folder), config=False)
    assert isinstance(nowhere.exception, PushFailed)


@pytest.mark.parametrize(
    ("file", "sound", "faulty", "what"),
    [
        ("lineage.jsonl", '"weight":100', '"weight":101', "the statement of round 1 "),
        ("model.json", '"epsilon_rdp": ', '"epsilon_rdp": 1', "another epsilon rdp of a"),
        ("model.json", '"statements": 4', '"statements": 3', "another lineage"),
        ("model.json", '"private": true', '"private": false', "another private"),
        ("model.json", '"gateway": "a"', '"gateway": "z"', "another list of gateways"),
        ("model.json", '"declared_units": 100', '"declared_units": 101', "another declared units"),
        ("model.json", '"task": "toy"', '"task": "boy"', "another task than"),
        ("model.json", '"federation": "acme"', '"federation": "acne"', "has not signed plan"),
        ("model.json", '"plan_signature": "', '"plan_signature": "0', "the plan's signature"),
        ("plan.pb", "toy", "boy", "has not signed plan"),
    ],
)
async def test_what_is_changed_in_an_exported_folder_is_found(
    commands, tmp_path, file, sound, faulty, what
):
    folder = tmp_path / "model"
    await commands("export", "r", "--out", str(folder))
    data = (folder / file).read_bytes()
    assert sound.encode() in data
    (folder / file).write_bytes(data.replace(sound.encode(), faulty.encode(), 1))
    done = await commands("verify", "--model", str(folder))
    assert what in str(done.exception)


async def test_one_bit_of_an_exported_model_is_found(commands, tmp_path):
    folder = tmp_path / "model"
    await commands("export", "r", "--out", str(folder))
    flip(folder / "model.safetensors", 999)
    done = await commands("verify", "--model", str(folder))
    assert isinstance(done.exception, ModelUnreadable)
    assert "is not the one that model.json describes" in str(done.exception)
