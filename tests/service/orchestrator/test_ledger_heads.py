"""The heads of gateways' ledgers at the orchestrator: countersigned, durable, never lowered."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from common.countersignature import is_genuine
from common.errors import ConflictError, RequestError
from common.ids import GatewayId
from common.protocol import LedgerHead
from orchestrator.signing_key import SigningKeyUnreadable, load_or_make, refuse_unreadable
from tests.fakes import INITIAL, chunks, plan_of

PLAN = plan_of("a", "b")
HEAD = LedgerHead(5, "5" * 64)


@pytest.fixture
def database(database_url):
    return database_url


@pytest.fixture
async def opened(federation):
    """Gateways a and b are in round 1."""
    async with federation.serving() as federation.server:
        await federation.start(PLAN)
        federation.a, federation.b = await federation.gateways("a", "b")
        await federation.a.accept("r")
        await federation.b.accept("r")
        yield federation


async def send(gateway, head: LedgerHead | None):
    data = gateway.body(1)
    header = await gateway.header("r", 1, INITIAL.digest, data)
    stream = chunks(data, header.body.offset)
    return await gateway.client.submit_update(replace(header, ledger_head=head), stream)


async def kept(gateway, *, seeded: bool = False) -> LedgerHead | None:
    given = await gateway.client.get_ledger_head(insecure_deterministic=seeded)
    return None if given is None else given.head


async def test_an_upload_brings_back_a_countersignature(opened):
    receipt = await send(opened.a, HEAD)
    given = receipt.countersigned
    assert (given.federation, given.head) == ("acme", HEAD)
    assert is_genuine(given, GatewayId("a"))
    assert await opened.a.client.get_ledger_head(insecure_deterministic=False) == given


async def test_the_same_upload_again_brings_the_countersignature_again(opened):
    first = await send(opened.a, HEAD)
    assert await send(opened.a, HEAD) == first


async def test_a_head_may_only_go_up(opened):
    await send(opened.a, HEAD)
    for lower in (LedgerHead(4, "4" * 64), LedgerHead(5, "6" * 64), LedgerHead(0, "0" * 64)):
        with pytest.raises(
            ConflictError, match=r"record 5 \(555555555555\).*rolled back or forked"
        ):
            await send(opened.a, lower)
        assert await kept(opened.a) == HEAD
    higher = LedgerHead(9, "9" * 64)
    await send(opened.a, higher)
    assert await kept(opened.a) == higher


async def test_a_refused_head_takes_no_byte(opened):
    other = opened.server.orchestrator.ledger_heads
    other.confirm(GatewayId("b"), HEAD)
    with pytest.raises(ConflictError):
        await send(opened.b, LedgerHead(1, "1" * 64))
    assert opened.server.orchestrator.runs.get("r").bytes_received == 0
    await send(opened.b, HEAD)
    assert opened.server.orchestrator.runs.get("r").bytes_received == len(opened.b.body(1))


async def test_a_gateway_that_has_named_a_head_must_go_on_naming_one(opened):
    await send(opened.a, HEAD)
    with pytest.raises(ConflictError, match="names no ledger head, and this gateway has named one"):
        await send(opened.a, None)
    await send(opened.b, None)  # the round closes with this one
    assert await kept(opened.b) is None


async def test_every_gateway_and_either_ledger_of_it_has_a_head_of_its_own(opened):
    await send(opened.a, HEAD)
    seeded = LedgerHead(1, "1" * 64, insecure_deterministic=True)
    await send(opened.a, seeded)
    assert (await kept(opened.a), await kept(opened.a, seeded=True)) == (HEAD, seeded)
    assert await kept(opened.b) is None


async def test_a_restart_keeps_heads_and_key(federation):
    given = []
    for _ in range(2):
        async with federation.serving():
            if not given:
                await federation.start(PLAN)
            (gateway,) = await federation.gateways("a")
            if not given:
                (other,) = await federation.gateways("b")
                await gateway.accept("r")
                await other.accept("r")
                await send(gateway, HEAD)
            given.append(await gateway.client.get_ledger_head(insecure_deterministic=False))
    assert given[0] == given[1]
    assert given[0].head == HEAD


async def test_no_head_has_been_named_at_first(opened):
    assert await kept(opened.a) is None


async def test_a_head_that_is_none_is_refused_with_its_field(opened):
    with pytest.raises(RequestError, match=r"ledger_head\.hash"):
        await send(opened.a, LedgerHead(5, "no hash"))


def test_the_key_is_made_once_and_only_its_owner_can_read_it(tmp_path):
    first = load_or_make(tmp_path).public_key().public_bytes_raw()
    assert load_or_make(tmp_path).public_key().public_bytes_raw() == first
    assert (tmp_path / "signing-key.pem").stat().st_mode & 0o077 == 0


def test_a_damaged_key_is_not_replaced(tmp_path):
    (tmp_path / "signing-key.pem").write_text("damaged")
    with pytest.raises(SigningKeyUnreadable, match=r"ledger trust"):
        load_or_make(tmp_path)
    with pytest.raises(SigningKeyUnreadable):
        refuse_unreadable(tmp_path)  # at the start, before anything is to be signed
    assert (tmp_path / "signing-key.pem").read_text() == "damaged"


def test_no_key_yet_and_a_sound_one_are_no_fault(tmp_path):
    refuse_unreadable(tmp_path)
    load_or_make(tmp_path)
    refuse_unreadable(tmp_path)


def test_another_kind_of_key_is_refused_when_it_is_to_sign(tmp_path):
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    (tmp_path / "signing-key.pem").write_bytes(pem)
    with pytest.raises(SigningKeyUnreadable):
        load_or_make(tmp_path)
