"""A plan's signature: anything that is changed, anywhere, is found and called by its name."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.ids import RunId
from common.plan_signature import (
    PlanSignatureRefused,
    SignatureForged,
    SignatureMalformed,
    SignedForAnother,
    check,
)
from common.protocol import RefusalReason
from common.wire import plan_id, plan_to_bytes
from tests.fakes import plan_of
from tests.signing import FEDERATION, PUBLIC_KEY, signed

PLAN = plan_to_bytes(plan_of("a", "b"))
RUN = RunId("first")
SIGNED = signed(RUN, PLAN)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_PUBLIC = OTHER_KEY.public_key().public_bytes_raw().hex()


def judge(signature=SIGNED, plan: bytes = PLAN, run: str = RUN, federation: str = FEDERATION):
    check(signature, federation, RunId(run), plan_id(plan))


def test_what_was_signed_is_taken():
    judge()


def flipped(data: bytes, place: int, bit: int) -> bytes:
    return data[:place] + bytes([data[place] ^ (1 << bit)]) + data[place + 1 :]


def tampered_plans():
    """Yield the plan changed in any byte, cut, lengthened, with one byte lost or two exchanged."""
    for place in range(len(PLAN)):
        yield flipped(PLAN, place, place % 8)
        yield flipped(PLAN, place, (place + 5) % 8)
        yield PLAN[:place]
        yield PLAN[:place] + PLAN[place + 1 :]
        yield PLAN[:place] + b"\0" + PLAN[place:]
        pair = PLAN[place : place + 2]
        yield PLAN[:place] + pair[::-1] + PLAN[place + 2 :]
    yield PLAN + b"\0"
    yield PLAN + PLAN


def test_a_plan_that_is_changed_anywhere_is_found():
    tries = [plan for plan in tampered_plans() if plan != PLAN]
    assert len(tries) > 1000
    for plan in tries:
        with pytest.raises(SignatureForged, match=plan_id(plan)[:12]):
            judge(plan=plan)


def test_a_signature_or_key_that_is_changed_in_any_digit_is_found():
    tries = 0
    for name in ("signature", "public_key"):
        digits = getattr(SIGNED, name)
        for place in range(len(digits)):
            for other in "05afA \0".replace(digits[place], ""):
                text = digits[:place] + other + digits[place + 1 :]
                with pytest.raises((SignatureForged, SignatureMalformed)):
                    judge(replace(SIGNED, **{name: text}))
                tries += 1
    assert tries > 1000


@pytest.mark.parametrize("place", range(0, 129, 8))
@pytest.mark.parametrize("name", ["signature", "public_key"])
def test_one_that_is_cut_or_too_long_is_named(name, place):
    digits = getattr(SIGNED, name)
    for text in {digits[:place], digits + digits[:place]} - {digits}:
        with pytest.raises(SignatureMalformed, match="hexadecimal digits"):
            judge(replace(SIGNED, **{name: text}))


def test_an_empty_signature_an_hmac_and_one_by_a_curve_are_named():
    ecdsa = "3045022100" + "ab" * 66
    for text in ("", "ab" * 32, "ab" * 48, ecdsa):
        with pytest.raises(SignatureMalformed, match="signature is"):
            judge(replace(SIGNED, signature=text))


def test_a_key_of_another_kind_is_named():
    for text in ("", "04" + "ab" * 64, "-----BEGIN PUBLIC KEY-----"):
        with pytest.raises(SignatureMalformed, match="public key is"):
            judge(replace(SIGNED, public_key=text))


def test_a_plan_of_another_federation_is_named():
    with pytest.raises(SignedForAnother, match=r"federation 'others', and is offered as 'acme'"):
        judge(signed(RUN, PLAN, "others"))


def test_a_plan_of_another_run_is_named():
    with pytest.raises(SignedForAnother, match=r"for run 'second', and is offered as 'first'"):
        judge(signed("second", PLAN))


def test_names_cannot_be_put_on_afterwards():
    for changed in ({"federation": "others"}, {"run_id": "second"}):
        with pytest.raises(SignatureForged):
            judge(replace(SIGNED, **changed), run="second", federation="others")


def test_another_keys_signature_does_not_pass_under_the_known_key():
    other = signed(RUN, PLAN, key=OTHER_KEY)
    judge(other)  # whether that key may order anything is for the gateway
    with pytest.raises(SignatureForged, match=PUBLIC_KEY[:16]):
        judge(replace(other, public_key=PUBLIC_KEY))
    with pytest.raises(SignatureForged, match=OTHER_PUBLIC[:16]):
        judge(replace(SIGNED, public_key=OTHER_PUBLIC))


def test_no_two_statements_are_the_same_bytes():
    parts = (("a", "b", "c"), ("a", "bc", ""), ("ab", "", "c"), ('a","plan":"b', "", "c"))
    said = {signed(run, plan.encode(), federation).signature for federation, run, plan in parts}
    assert len(said) == len(parts)


def test_every_refusal_has_a_reason_for_the_orchestrator():
    kinds = chain([PlanSignatureRefused], PlanSignatureRefused.__subclasses__())
    assert {kind.reason for kind in kinds} <= {
        RefusalReason.PLAN_SIGNATURE,
        RefusalReason.PLAN_UNTRUSTED,
    }
