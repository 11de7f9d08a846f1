"""What the tests of epsilon share."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def no_warning(caplog):
    """No accountant warned, of its precision above all."""
    yield
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
