"""Evidence for a model that says what its plan does not: each such statement is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cli.evidence import Evidence, check
from common import wire
from common.lineage import LineageBroken, Trained, sign
from common.plan_signature import SignatureForged, SignedForAnother
from common.plan_signature import sign as sign_plan
from orchestrator.fencing import Fence
from tests.fakes import EFFECTIVE
from tests.on_record import key
from tests.published import RUN, plan_of_rounds, published_rounds

COUNT = 3


@pytest.fixture
def evidence(engine):
    origin, signed = published_rounds(Fence(engine), COUNT)
    plan = wire.plan_to_bytes(plan_of_rounds(COUNT))
    ordered = sign_plan(key(), origin.federation, RUN, origin.plan)
    return Evidence(origin.federation, RUN, plan, ordered, signed)


def told(evidence, number: int, **changes) -> Evidence:
    """Return evidence whose signer says something else in one statement, and signs all again."""
    found, before = [], ""
    for place, each in enumerate(evidence.signed, 1):
        statement = replace(each.statement, previous=before)
        if place == number:
            statement = replace(statement, **changes)
        found.append(sign(key(), statement))
        before = found[-1].digest
    return replace(evidence, signed=tuple(found))


def test_what_fits_together_is_taken_and_says_who_ordered_it(evidence):
    checked = check(told(evidence, 1))
    assert checked.plan_signed_by == evidence.plan_signature.public_key
    assert [each.round for each in checked.lineage.rounds] == [1, 2, 3]


def test_a_plan_that_nobody_signed_is_said_to_be(evidence):
    assert check(replace(evidence, plan_signature=None)).plan_signed_by is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"total_weight": 299}, "its total weight is 299, no 300 to 300"),
        ({"total_weight": 301}, "its total weight is 301, no 300 to 300"),
        ({"updates_kept": True}, "whether updates are kept is not the plan's"),
        ({"rounds": COUNT + 1}, "number of rounds is not the plan's"),
        ({"norm_bound": 1.0}, r"its bound on norms is 1\.0, by the plan it is None"),
        ({"federation": "acne"}, "of federation 'acne', not of 'acme'"),
    ],
)
def test_a_round_that_says_what_the_plan_does_not_is_named(evidence, changes, problem):
    with pytest.raises(LineageBroken, match=f"the statement of round 2 .*{problem}"):
        check(told(evidence, 2, **changes))


def test_the_weight_of_an_update_is_the_plans(evidence):
    first, second = evidence.signed[1].statement.updates
    with pytest.raises(LineageBroken, match=r"round 2 .*gives b the weight 201, the plan 200"):
        check(told(evidence, 2, updates=(first, replace(second, weight=201))))


def test_no_gateway_is_in_a_mean_twice(evidence):
    first, _ = evidence.signed[1].statement.updates
    trained = (Trained(EFFECTIVE, {"a": 9, "b": 9}),)  # enough rounds for whatever is claimed
    with pytest.raises(LineageBroken, match=r"round 3 .*one gateway is in it twice"):
        check(told(evidence, 3, updates=(first, first), trained=trained))


def test_the_models_tail_is_the_plans(evidence):
    with pytest.raises(
        LineageBroken, match=r"the statement of the model .*tail is 3, by the plan 2"
    ):
        check(told(evidence, COUNT + 1, tail=3))


def test_a_plan_that_was_ordered_for_another_run_or_not_at_all_is_refused(evidence):
    ordered = evidence.plan_signature
    elsewhere = sign_plan(key(), "acme", "other", check(evidence).plan_digest)
    with pytest.raises(SignedForAnother):
        check(replace(evidence, plan_signature=elsewhere))
    forged = replace(ordered, signature="0" * 128)
    with pytest.raises(SignatureForged):
        check(replace(evidence, plan_signature=forged))


def test_a_mean_of_nothing_is_no_round(evidence):
    with pytest.raises(LineageBroken, match=r"round 2 .*it is of no update"):
        check(told(evidence, 2, updates=()))


def test_a_lineage_begins_with_the_run(evidence):
    later = replace(evidence, signed=evidence.signed[1:])
    assert (evidence.is_from_the_start, later.is_from_the_start) == (True, False)
    begun = told(replace(evidence, signed=evidence.signed[1:]), 1)
    with pytest.raises(LineageBroken, match=r"round 1 .*it begins at the statement of round 2"):
        check(begun)


def test_nobodys_update_is_in_a_mean_for_which_it_was_not_told_to_train(evidence):
    trained = (Trained(EFFECTIVE, {"a": 2}),)
    with pytest.raises(LineageBroken, match=r"round 2 .*b trained for fewer rounds"):
        check(told(evidence, 2, trained=trained))


def test_a_model_follows_from_rounds(evidence):
    """Whoever signs alone could else name any weights: no round, nothing that was trained."""
    first, *_, model = (each.statement for each in evidence.signed)
    alone = sign(key(), replace(model, previous="", parent=first.parent))
    with pytest.raises(LineageBroken, match=r"the statement of round 1 .*round 1 is missing"):
        check(replace(evidence, signed=(alone,)))
