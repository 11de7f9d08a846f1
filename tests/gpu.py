"""Marks what needs a GPU: elsewhere it is skipped, and says so."""

from __future__ import annotations

import pytest

from gateway.device import is_usable

NEEDS_GPU = pytest.mark.skipif(not is_usable("cuda"), reason="torch finds no GPU that it can use")
DEVICES = ("cpu", pytest.param("cuda", marks=NEEDS_GPU))
