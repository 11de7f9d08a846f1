"""A run is started from the page: by operators, with an order that was signed elsewhere."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
import tomli_w
from typer.testing import CliRunner

from cli.main import app as fedgate
from common.ids import RunId
from common.run_order import HEAD, TAIL, order_from_text, order_to_text
from common.tls import PEOPLE, Role
from orchestrator.config import FourEyesSettings, WebSettings
from tests.fakes import INITIAL, plan_of
from tests.page import RUN, signed_in, varied_plan
from tests.signing import KEY, order


@pytest.fixture
async def served(federation):
    """An orchestrator with a page, to which the initial weights have come."""
    web = WebSettings(address="127.0.0.1:0")
    federation.config = federation.config.model_copy(update={"web": web})
    async with federation.serving() as federation.server:
        operator = await federation.operator()
        await operator.upload_weights(INITIAL.to_bytes())
        yield federation


@pytest.fixture
async def olga(served):
    async with signed_in(served, served.server) as operator:
        yield operator


TEXT = order_to_text(*order(RUN, varied_plan(1)))


def runs(federation) -> tuple[str, ...]:
    return federation.server.orchestrator.runs.names()


async def test_an_order_is_looked_at_before_anything_is_started(served, olga):
    answer = await olga.post("/start", csrf=await olga.csrf(), order=TEXT)
    assert f"Start run {RUN}?" in answer.text
    assert all(name in answer.text for name in varied_plan(1).gateways)
    assert "epsilon 8, delta 1e-05" in answer.text
    assert runs(served) == ()


async def test_an_operator_starts_a_run_and_it_is_on_record_who_did(served, olga):
    answer = await olga.post("/start", csrf=await olga.csrf(), order=TEXT, sure="yes")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{RUN}")
    assert runs(served) == (RUN,)
    records = [line.record for line in served.server.orchestrator.audit.records(0)]
    assert ("fed://acme/operator/olga", "start_run") in {(r.actor, r.action) for r in records}
    assert (await olga.get(f"/runs/{RUN}")).status_code == 200


async def test_the_same_order_again_starts_nothing_twice(served, olga):
    for _ in range(2):
        answer = await olga.post("/start", csrf=await olga.csrf(), order=TEXT, sure="yes")
        assert answer.status_code == 303
    assert runs(served) == (RUN,)


@pytest.mark.parametrize("role", sorted(PEOPLE - {Role.OPERATOR}))
async def test_nobody_but_an_operator_starts_a_run(served, role):
    async with signed_in(served, served.server, role, "somebody") as somebody:
        csrf = await somebody.csrf()
        answer = await somebody.post("/start", csrf=csrf, order=TEXT, sure="yes")
        assert answer.status_code == 403
        assert "Start a run" not in (await somebody.get("/")).text
    assert runs(served) == ()


@pytest.mark.parametrize("form", ["nothing", "another origin"])
async def test_a_run_is_not_started_by_a_form_that_is_not_of_this_session(served, olga, form):
    fields = {"csrf": await olga.csrf()} if form == "another origin" else {}
    origin = "https://elsewhere.example" if form == "another origin" else ""
    answer = await olga.post("/start", origin, order=TEXT, sure="yes", **fields)
    assert answer.status_code == 403
    assert runs(served) == ()


def without_signature() -> str:
    request = order_from_text(TEXT)
    signed = order_to_text(*order(RUN, varied_plan(1)))
    request.ClearField("signature")
    from base64 import b64encode  # noqa: PLC0415

    text = f"{HEAD}\n{b64encode(request.SerializeToString()).decode()}\n{TAIL}\n"
    assert text != signed
    return text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no order", "take all of the file"),
        (without_signature(), "sign"),
        (order_to_text(*order(RUN, varied_plan(1), "elsewhere")), "signature"),
        (order_to_text(RunId("other"), *order(RUN, varied_plan(1))[1:]), "signature"),
        (order_to_text(*order(RUN, b"no plan")), "not this message"),
    ],
)
async def test_what_no_gateway_would_take_is_refused_with_a_sentence(served, olga, text, said):
    answer = await olga.post("/start", csrf=await olga.csrf(), order=text, sure="yes")
    assert answer.status_code == 400
    assert said in answer.text
    assert runs(served) == ()


async def test_an_order_of_a_thousand_gateways_is_short_enough(served, olga):
    many = plan_of(*(f"site-{number}" for number in range(1000)))
    text = order_to_text(*order("many", many))
    answer = await olga.post("/start", csrf=await olga.csrf(), order=text)
    assert "Start run many?" in answer.text


async def test_what_needs_two_people_needs_two_of_them_here_too(federation):
    two = FourEyesSettings(methods=("StartRun",), within_s=3600)
    update = {"web": WebSettings(address="127.0.0.1:0"), "four_eyes": two}
    federation.config = federation.config.model_copy(update=update)
    async with federation.serving() as federation.server, AsyncExitStack() as people:
        operator = await federation.operator()
        await operator.upload_weights(INITIAL.to_bytes())
        olga = await people.enter_async_context(signed_in(federation, federation.server))
        otto = signed_in(federation, federation.server, name="otto")
        otto = await people.enter_async_context(otto)
        first = await olga.post("/start", csrf=await olga.csrf(), order=TEXT, sure="yes")
        assert first.status_code == 409
        assert "needs a second person" in first.text
        assert runs(federation) == ()
        second = await otto.post("/start", csrf=await otto.csrf(), order=TEXT, sure="yes")
        assert second.status_code == 303
        assert runs(federation) == (RUN,)


PLAN_FILE = """
name = "small"
[task]
reference = "tests.tiny_task:TASK"
labels = ["no", "yes"]
[rounds]
count = 1
quorum = 1
deadline_s = 10.0
[privacy]
delta = 1e-5
target_epsilon = 8.0
[hyperparameters]
learning_rate = 1.0
clipping_norm = 1.0
noise_multiplier = 4.0
sampling_rate = 0.5
local_steps = 1
[[participants]]
gateway = "a"
declared_units = 60
"""


async def test_what_the_command_prepares_is_started_on_the_page(served, olga, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN_FILE)
    key = tmp_path / "plan.key"
    key.write_bytes(pem_of(KEY))
    files = served.authority.issue(Role.OPERATOR, "otto")
    tls = {name: str(path) for name, path in files}
    tables = {"address": served.address, "tls": tls, "signing_key": str(key)}
    (tmp_path / "operator.toml").write_text(tomli_w.dumps(tables))
    out, plan = tmp_path / "first.order", tmp_path / "plan.toml"
    where = ("--out", str(out), "--config", str(tmp_path / "operator.toml"))
    words = ["run", "prepare", "--plan", str(plan), "--run-id", "first", *where]
    done = await asyncio.to_thread(CliRunner().invoke, fedgate, words)
    assert done.exit_code == 0, done.exception
    text = out.read_text()
    answer = await olga.post("/start", csrf=await olga.csrf(), order=text, sure="yes")
    assert answer.status_code == 303, answer.text
    assert runs(served) == ("first",)


def pem_of(key) -> bytes:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
