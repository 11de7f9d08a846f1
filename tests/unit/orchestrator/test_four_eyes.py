"""What is asked for by one person waits for another."""

from __future__ import annotations

import pytest

from orchestrator.four_eyes import REPEAT_S, Asked, NoSuchAction, after_asking, methods_called
from protos.federation.v1 import operator_pb2 as pb

WITHIN_S = 3600
CANCEL, START = (f"/federation.v1.OperatorService/{name}" for name in ("CancelRun", "StartRun"))


def asking(*names: str) -> Asked:
    """Return what stands after these people have asked, a second apart."""
    asked = None
    for now, name in enumerate(names, 1000):
        asked = after_asking(asked, name, now=now, within_s=WITHIN_S)
    return asked


def test_one_person_waits_for_another():
    assert asking("olga") == Asked("olga", None, 1000 + WITHIN_S)


def test_one_person_is_never_two_and_gets_no_more_time_by_asking_again():
    assert asking("olga", "olga", "olga") == asking("olga")


def test_a_second_person_makes_it_happen():
    assert asking("olga", "otto") == Asked("olga", "otto", 1001 + REPEAT_S)


@pytest.mark.parametrize("name", ["olga", "otto"])
def test_either_may_send_it_again_when_an_answer_was_lost(name):
    assert asking("olga", "otto", name) == asking("olga", "otto")


def test_what_makes_another_one_each_time_happens_once_for_two():
    """A token to enrol with, say: who sends it again asks for another."""
    first = after_asking(None, "olga", now=1000, within_s=WITHIN_S)
    done = after_asking(first, "otto", now=1001, within_s=WITHIN_S, repeat_s=0)
    assert (done.confirmed_by, done.good_until) == ("otto", 1001)


def test_a_third_person_begins_anew():
    assert asking("olga", "otto", "oma") == Asked("oma", None, 1002 + WITHIN_S)


def test_what_can_be_listed_is_called_by_its_name():
    assert methods_called(["CancelRun", "StartRun"]) == {CANCEL, START}


@pytest.mark.parametrize(
    "name", ["Cancel", "ListRuns", "WatchRun", "UploadWeights", "Register", "Check", "List", CANCEL]
)
def test_what_nobody_asks_for_twice_cannot_be_listed(name):
    with pytest.raises(NoSuchAction, match=r"it may name .*CancelRun.*StartRun"):
        methods_called([name])


def test_the_contract_of_those_methods_is_here():
    assert pb.DESCRIPTOR.services_by_name["OperatorService"].methods_by_name["CancelRun"]
