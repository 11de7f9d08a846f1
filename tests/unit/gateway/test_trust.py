"""Whom a gateway obeys: the keys in its own trust file, for its own federation, and no others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.ids import RunId
from common.plan_signature import PlanSignatureRefused
from common.protocol import Config, RefusalReason
from common.wire import plan_id, plan_to_bytes
from gateway.trust import PlanTrust
from tests.fakes import HYPERPARAMETERS, plan_of
from tests.signing import FEDERATION, PUBLIC_KEY, TRUST, signed

RUN, PLAN, OTHER = RunId("first"), plan_to_bytes(plan_of("a")), plan_to_bytes(plan_of("a", "b"))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
GIVEN = Config(RUN, PLAN, plan_id(PLAN), HYPERPARAMETERS, signed(RUN, PLAN))

REFUSED = {
    "not signed": (replace(GIVEN, signature=None), "is not signed", "PLAN_UNTRUSTED"),
    "a stranger's key": (
        replace(GIVEN, signature=signed(RUN, PLAN, key=STRANGER)),
        "not in this gateway's trust file",
        "PLAN_UNTRUSTED",
    ),
    "no key": (
        replace(GIVEN, signature=replace(GIVEN.signature, public_key="")),
        "not in this gateway's trust file",
        "PLAN_UNTRUSTED",
    ),
    "an empty signature": (
        replace(GIVEN, signature=replace(GIVEN.signature, signature="")),
        "has 128 lower-case hexadecimal digits",
        "PLAN_SIGNATURE",
    ),
    "another plan": (
        replace(GIVEN, plan=OTHER, plan_digest=plan_id(OTHER)),
        "was changed on the way",
        "PLAN_SIGNATURE",
    ),
    "another plan under the old digest": (
        replace(GIVEN, plan=OTHER),
        "was changed on the way",
        "PLAN_SIGNATURE",
    ),
    "another federation's plan": (
        replace(GIVEN, signature=signed(RUN, PLAN, "others")),
        "signed for federation 'others'",
        "PLAN_SIGNATURE",
    ),
    "another run's plan": (
        replace(GIVEN, signature=signed("second", PLAN)),
        "signed for run 'second'",
        "PLAN_SIGNATURE",
    ),
    "another run's plan that says it is": (
        replace(GIVEN, run_id=RunId("second"), signature=signed("second", PLAN)),
        "signed for run 'second'",
        "PLAN_SIGNATURE",
    ),
}


def test_a_plan_that_is_signed_for_this_run_is_taken_and_its_signer_named():
    assert TRUST.signer(RUN, GIVEN) == "olga"


@pytest.mark.parametrize(("given", "says", "reason"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_by_name(given, says, reason):
    with pytest.raises(PlanSignatureRefused, match=says) as refused:
        TRUST.signer(RUN, given)
    assert refused.value.reason is RefusalReason[reason]


def test_a_key_that_is_taken_out_orders_nothing_more():
    keys = {PUBLIC_KEY: "olga"}
    trust = PlanTrust(FEDERATION, lambda: keys)
    trust.signer(RUN, GIVEN)
    keys.clear()
    with pytest.raises(PlanSignatureRefused, match="not in this gateway's trust file"):
        trust.signer(RUN, GIVEN)
