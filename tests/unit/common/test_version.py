from __future__ import annotations

import pytest

from common.version import SOFTWARE_VERSION, public_version
from gateway.egress import VERSION


def test_what_a_local_build_adds_to_the_version_is_not_said():
    assert public_version("0.2.0.dev3+ward7.buildhost") == "0.2.0.dev3"


@pytest.mark.parametrize("text", [SOFTWARE_VERSION, "1.0", "0.2.0rc1", "0.2.0.post1.dev3"])
def test_public_versions_may_leave(text):
    assert VERSION.admits(text)


@pytest.mark.parametrize("text", ["0.1.0+ward7", "0.1.0 /home/ann", "", "main", "0.1.0\n"])
def test_nothing_else_leaves_as_a_version(text):
    assert not VERSION.admits(text)
