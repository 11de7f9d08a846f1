from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common import wire
from common.countersignature import countersign, is_genuine, statement
from common.ids import GatewayId
from common.protocol import LedgerHead, Receipt, UpdateKey
from common.wire_values import InvalidMessage

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([1] * 32))
NORTH, HEAD = GatewayId("north"), LedgerHead(7, "ab" * 32)
GIVEN = countersign(KEY, "clinics", NORTH, HEAD)


def test_a_countersignature_is_genuine_for_its_gateway():
    assert is_genuine(GIVEN, NORTH)
    assert not is_genuine(GIVEN, GatewayId("south"))


@pytest.mark.parametrize(
    "changes",
    [
        {"federation": "others"},
        {"head": replace(HEAD, sequence=6)},
        {"head": replace(HEAD, hash="ac" * 32)},
        {"head": replace(HEAD, insecure_deterministic=True)},
        {"public_key": "00" * 32},
        {"public_key": OTHER_KEY.public_key().public_bytes_raw().hex()},
        {"signature": GIVEN.signature[:-2] + "00"},
    ],
    ids=["federation", "sequence", "hash", "mode", "no key", "another key", "signature"],
)
def test_whatever_is_changed_makes_it_a_forgery(changes):
    assert not is_genuine(replace(GIVEN, **changes), NORTH)


def test_a_signature_for_another_purpose_is_none():
    said = statement("clinics", NORTH, HEAD).removeprefix(b"fedgate ledger head 1\0")
    assert not is_genuine(replace(GIVEN, signature=KEY.sign(said).hex()), NORTH)


def test_it_comes_through_the_wire_as_it_was():
    receipt = Receipt(UpdateKey("r", 1), "ab" * 32, GIVEN)
    assert wire.receipt_from_proto(wire.receipt_to_proto(receipt)) == receipt
    for newest in (GIVEN, None):
        assert wire.ledger_head_from_proto(wire.ledger_head_to_proto(newest)) == newest


def test_a_malformed_one_is_refused_with_its_field():
    message = wire.ledger_head_to_proto(GIVEN)
    message.countersigned.head.sequence = 1 << 63
    with pytest.raises(InvalidMessage, match=r"head\.sequence"):
        wire.ledger_head_from_proto(message)
