"""Settings for every test."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from tests.postgresql import Server

# no deadline: the machines are noisy; in CI the same examples each time
settings.register_profile("fedgate", max_examples=50, deadline=None, derandomize="CI" in os.environ)
# for code that is wrong on purpose: one failure is enough, however large its example
settings.register_profile(
    "planted",
    settings.get_profile("fedgate"),
    phases=(Phase.explicit, Phase.generate),
    report_multiple_bugs=False,
)
settings.load_profile("fedgate")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what is imported by now: torch's and scipy's objects stay."""
    gc.freeze()


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """Leave the log as it was: a command that ran in this process wrote to a stream of its own."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Server]:
    """A PostgreSQL server for the whole session; skips where none is installed."""
    from tests.postgresql import Server  # noqa: PLC0415 - most sessions need none

    server = Server()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database, in each engine."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    server = request.getfixturevalue("postgresql")
    return server.url(server.make_database())
