"""A run that an earlier version began goes on under this one, on the state that was left."""

from __future__ import annotations

import tarfile

import pytest
from sqlalchemy import create_engine, select

from cli.operator_client import OperatorClient
from common.protocol import RunState
from common.schema import REVISIONS
from gateway.ledger_tables import SCHEMA as LEDGER
from orchestrator.database import EVENTS, RUNS
from orchestrator.database import SCHEMA as JOURNAL
from tests.faults.federation import RUN, SITES, Federation
from tests.faults.older import FOLDER, TASK
from tests.signing import order

pytestmark = pytest.mark.timeout(300)

OLDER = sorted(path.name.removesuffix(".tar.xz") for path in FOLDER.glob("*.tar.xz"))


@pytest.fixture(params=OLDER)
def left(request, tmp_path):
    """A federation that was stopped in its second round of three, and what it has published."""
    with tarfile.open(FOLDER / f"{request.param}.tar.xz") as kept:
        kept.extractall(tmp_path, filter="data")
    federation = Federation(tmp_path)
    federation.task = TASK
    yield federation
    federation.close()


def published(federation: Federation) -> list[str]:
    """Return the digests of the weights of each round that was published."""
    payload = select(EVENTS.c.payload).where(EVENTS.c.kind == "RoundPublished")
    return [said["weights"] for (said,) in federation._journal(payload.order_by(EVENTS.c.id))]


def revision(url: str) -> str:
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return connection.execute(select(REVISIONS.c.version_num)).scalar_one()
    finally:
        engine.dispose()


def sign(federation: Federation) -> None:
    """Start the run again, under the same plan: earlier versions signed none."""
    (plan,) = federation._journal(select(RUNS.c.plan))[0]

    async def start(client: OperatorClient) -> None:
        await client.start_run(*order(RUN, bytes(plan), "test"))

    federation._ask(start)


def test_a_run_that_an_earlier_version_began_completes(left):
    before = published(left)
    assert len(before) == 1
    left.start_orchestrator()
    sign(left)
    for site in SITES:
        left.start_gateway(site)
    status = left.finish()
    assert status.state is RunState.COMPLETED, status
    for site in SITES:
        left.check_ledger(site)  # each round charged once, those of the earlier version among them
    assert published(left)[:1] == before
    assert len(published(left)) == 3
    assert revision(left.database) == JOURNAL.newest
    ledgers = {revision(f"sqlite:///{left.folder / s / 'insecure-ledger.sqlite'}") for s in SITES}
    assert ledgers == {LEDGER.newest}
