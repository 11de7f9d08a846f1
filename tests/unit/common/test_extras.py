"""What is said where a package of an extra is missing."""

from __future__ import annotations

import pytest

from common.extras import missing_package


def test_what_an_extra_brings_is_named_with_a_way_to_install_it():
    said = str(missing_package(ModuleNotFoundError("no torch", name="torch.nn")))
    assert "'torch', which is not installed here: pip install 'fedgate[demo]'" in said
    assert "'fedgate[gateway]'" in said


@pytest.mark.parametrize("name", ["letters", "torchlike", None])
def test_of_other_modules_nothing_is_said(name):
    assert missing_package(ModuleNotFoundError("no module", name=name)) is None
