"""What befalls a federation by itself: each strike is drawn, done, and says whether it counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import FederationError
from common.protocol import UpdateHeader
from common.transfer import chunks_of
from tests.simulation.faults import HARMLESS, Fault
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from tests.simulation.federation import Federation, Machine

ORCHESTRATOR = "orchestrator"


def anyone(federation: Federation) -> Machine:
    return federation.machines[federation.random.choice((ORCHESTRATOR, *federation.names))]


def some_gateway(federation: Federation) -> str:
    return federation.random.choice(federation.names)


def end_process(federation: Federation, name: str, *, power: bool) -> bool:
    """End a process where it stands, its machine with it or not."""
    process = federation.machines[name].newest
    if process is not None:
        federation.crash(process, power=power)
    return process is not None


def pause(federation: Federation) -> bool:
    process = anyone(federation).newest
    if process is None:
        return False
    process.pause(federation.random.choice((1.0, 10.0, 40.0)))
    federation.network.unanswered(process)
    return True


def start_second(federation: Federation) -> bool:
    """Pause the orchestrator, start another; the first wakes up and goes on."""
    process = federation.machines[ORCHESTRATOR].newest
    if process is None or process is not federation.network.serving:
        return False
    process.pause(federation.random.uniform(0.0, 30.0))
    federation.network.unanswered(process)
    federation.start(ORCHESTRATOR)
    return True


def cut(federation: Federation, *, up: bool, down: bool) -> bool:
    seconds = federation.random.choice((1.0, 10.0, 25.0, 60.0))
    federation.network.block(some_gateway(federation), seconds, up=up, down=down)
    return True


def cut_one_way(federation: Federation) -> bool:
    up = federation.random.random() < 0.5
    return cut(federation, up=up, down=not up)


def slow_down(federation: Federation) -> bool:
    link = federation.network.links[some_gateway(federation)]
    link.slow_s = federation.random.uniform(0.5, 10.0)
    mended_s = federation.random.uniform(5.0, 40.0)
    federation.loop.call_later(mended_s, setattr, link, "slow_s", 0.0)
    return True


def fill_disk(federation: Federation) -> bool:
    """Fill a disk for a while; it counts when a write fails."""
    disk = anyone(federation).disk
    disk.is_full = True
    mended_s = federation.random.uniform(1.0, 30.0)
    federation.loop.call_later(mended_s, setattr, disk, "is_full", False)
    return False


def take_database_away(federation: Federation) -> bool:
    """Let nobody reach a database for a while; it counts when a question fails."""
    name = anyone(federation).name
    file = "journal.db" if name == ORCHESTRATOR else "ledger.sqlite"
    path, away = federation.folder / name / file, federation.databases.away
    away.add(path)
    federation.loop.call_later(federation.random.uniform(0.1, 20.0), away.discard, path)
    return False


def jump(federation: Federation) -> bool:
    anyone(federation).clock.jump_s += federation.random.choice((-3600.0, 3600.0))
    return True


def replay(federation: Federation) -> bool:
    """Have an update that was sent before reach the orchestrator once more."""
    server, sent = federation.network.serving, federation.network.updates
    if server is None or not sent:
        return False
    server.spawn(_send_again(federation, server, *federation.random.choice(sent)), "replay")
    return True


async def _send_again(
    federation: Federation, server: Process, gateway: str, header: UpdateHeader, data: bytes
) -> None:
    async def chunks():
        for chunk in chunks_of(data):
            await asyncio.sleep(0.01)
            yield chunk

    seen = federation.network.programs[server].seen_by(gateway)
    try:
        receipt = await seen.submit_update(header, chunks())
    except (*HARMLESS, FederationError) as error:
        federation.history.note(f"replay refused: {error!r:.120}")
    else:
        federation.history.acted(server, gateway, "submit_update", (header,), receipt)


STRIKES: dict[Fault, Callable[[Federation], bool]] = {
    Fault.PARTITION: lambda f: cut(f, up=True, down=True),
    Fault.PARTITION_ONE_WAY: cut_one_way,
    Fault.REPLAY: replay,
    Fault.SLOW_PEER: slow_down,
    Fault.ORCHESTRATOR_KILL: lambda f: end_process(f, ORCHESTRATOR, power=False),
    Fault.ORCHESTRATOR_POWER_LOSS: lambda f: end_process(f, ORCHESTRATOR, power=True),
    Fault.GATEWAY_KILL: lambda f: end_process(f, some_gateway(f), power=False),
    Fault.GATEWAY_POWER_LOSS: lambda f: end_process(f, some_gateway(f), power=True),
    Fault.TWO_ORCHESTRATORS: start_second,
    Fault.PAUSE: pause,
    Fault.DISK_FULL: fill_disk,
    Fault.DATABASE_AWAY: take_database_away,
    Fault.CLOCK_JUMP: jump,
}
