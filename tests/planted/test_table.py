from __future__ import annotations

import pytest

from gateway import dp_sgd
from tests.planted.bugs import BUGS
from tests.planted.planting import ROOT, NotPlanted, plant, planted


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_still_be_planted_and_its_test_is_there(bug):
    source = (ROOT / bug.path).read_text()
    compile(planted(bug, source), bug.path, "exec")
    file, _, test = bug.caught_by.partition("::")
    assert f"def {test}(" in (ROOT / file).read_text()


def test_a_bug_whose_place_is_gone_is_reported():
    with pytest.raises(NotPlanted, match="must hold exactly once"):
        planted(BUGS[0], "something else")


def test_a_bug_comes_too_late_for_a_module_that_is_imported():
    assert dp_sgd.__name__ == BUGS[0].module
    with pytest.raises(NotPlanted, match="is imported already"):
        plant(BUGS[0])


def test_no_two_bugs_have_one_name():
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 15
