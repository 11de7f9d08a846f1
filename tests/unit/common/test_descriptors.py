from __future__ import annotations

import resource

import pytest

from common.descriptors import allow_many


@pytest.fixture
def few():
    """A process that began with a low limit, as many systems set it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, soft), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_process_takes_all_the_descriptors_that_it_may_have(few):
    assert allow_many() == few
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (few, few)


def test_where_the_limit_cannot_be_raised_it_stays(few, monkeypatch):
    def refuse(_resource, _limits):
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert allow_many() == min(256, few)
    monkeypatch.undo()
