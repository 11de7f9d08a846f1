from __future__ import annotations

import pytest

from common.accounting import PrivacyEvent
from common.plan import Unit
from gateway.records import EMPTY, Head, Kind, Record, after
from gateway.spending import costs_no_less, spent_in

ROUND = PrivacyEvent(2.0, 0.5, 2)
DEARER = PrivacyEvent(1.0, 0.5, 2)
OTHERWISE = PrivacyEvent(1.0, 0.5, 1)  # neither dearer nor cheaper than ROUND


def facts(number: int, event: PrivacyEvent = ROUND, *, mark: str | None = None) -> dict:
    said = {
        "run": "run",
        "round": number,
        "data_set": "letters",
        "mechanism": "poisson_gaussian",
        "noise_multiplier": event.noise_multiplier,
        "sampling_rate": event.sampling_rate,
        "steps": event.steps,
    }
    return said if mark is None else {**said, "mark": mark}


def chain(*charges: dict, head: Head = EMPTY) -> list[Record]:
    records = []
    for charge in charges:
        records.append(after(head, Kind.CHARGE, charge))
        head = records[-1].head
    return records


def merged(
    ours: list[Record],
    taken: list[Record] = (),
    assumed: list[dict] = (),
    confirmed: Head | None = None,
) -> list[Record]:
    head = ours[-1].head if ours else EMPTY
    said = {
        "ours": head.to_facts(),
        "theirs": None,
        "orchestrator": confirmed.to_facts() if confirmed else None,
        "taken": [record.to_json() for record in taken],
        "assumed": list(assumed),
    }
    return [*ours, after(head, Kind.MERGE, said)]


def spent(records) -> list[tuple[int, PrivacyEvent]]:
    return [(each.round, each.event) for each in spent_in(records)]


def test_a_charge_in_two_images_is_spent_once():
    ours = chain(facts(1, mark="a"))
    theirs = chain(facts(1, mark="a"), facts(2, mark="b"))
    assert spent(merged(ours, theirs[1:])) == [(1, ROUND), (2, ROUND)]
    assert spent(merged(merged(ours, theirs[1:]), theirs)) == [(1, ROUND), (2, ROUND)]


def test_a_round_that_two_images_charged_apart_was_released_twice():
    ours, theirs = chain(facts(1, mark="a")), chain(facts(1, mark="b"))
    assert spent(merged(ours, theirs)) == [(1, ROUND), (1, ROUND)]
    assert [each.is_own for each in spent_in(merged(ours, theirs))] == [True, False]


@pytest.mark.parametrize(
    ("found", "stated", "counts"),
    [
        (ROUND, ROUND, [ROUND]),
        (ROUND, DEARER, [DEARER]),
        (DEARER, ROUND, [DEARER]),
        (ROUND, OTHERWISE, [ROUND, OTHERWISE]),
    ],
)
def test_of_a_lost_charge_found_again_and_a_stated_one_the_larger_counts(found, stated, counts):
    lost = chain(facts(1, found, mark="a"), facts(2, mark="b"))
    for last in lost:
        records = merged([], [], [facts(1, stated)], last.head)
        rounds = spent(merged(records, lost))
        assert [event for number, event in rounds if number == 1] == counts


def test_a_charge_that_was_not_countersigned_before_the_statement_is_another_one():
    other = chain(facts(1, mark="a"), facts(2, mark="b"))
    for confirmed in (None, other[0].head, Head(9, "9" * 64)):
        records = merged(merged([], [], [facts(2)], confirmed), other)
        assert [number for number, _ in spent(records)] == [1, 2, 2]


def test_a_release_is_of_the_unit_of_its_charge_and_of_the_only_one_where_none_is_named():
    ours = chain(facts(1, mark="a"), {**facts(2, mark="b"), "unit": "document"})
    assert [each.unit for each in spent_in(ours)] == [Unit.EXAMPLE, Unit.DOCUMENT]


def test_what_is_stated_twice_is_spent_once():
    records = merged(merged([], [], [facts(1)]), [], [facts(1, DEARER), facts(2)])
    assert spent(records) == [(1, DEARER), (2, ROUND)]


def test_what_is_stated_stands_for_one_release_of_its_round():
    apart = chain(facts(1, mark="a"), facts(1, mark="b"))
    stated = merged(apart, [], [facts(1, DEARER)], apart[-1].head)
    assert spent(stated) == [(1, DEARER), (1, ROUND)]


@pytest.mark.parametrize(
    ("dearer", "cheaper"),
    [
        (ROUND, ROUND),
        (PrivacyEvent(1.9, 0.5, 2), ROUND),
        (PrivacyEvent(2.0, 0.6, 2), ROUND),
        (PrivacyEvent(2.0, 0.5, 3), ROUND),
    ],
)
def test_less_noise_a_higher_rate_and_more_steps_cost_more(dearer, cheaper):
    assert costs_no_less(dearer, cheaper)
    assert (dearer == cheaper) == costs_no_less(cheaper, dearer)


def test_charges_that_cannot_be_compared_are_not():
    assert not costs_no_less(ROUND, OTHERWISE)
    assert not costs_no_less(OTHERWISE, ROUND)
