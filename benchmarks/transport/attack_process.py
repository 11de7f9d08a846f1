"""Members of a federation who mean harm: `... attack_process FOLDER ADDRESS ATTACK NAME...`.

ATTACK is JSON, the fields of `Attack`. The first name floods, the second sends bombs, each other
holds calls open whose first message never comes. Beside the log there is one JSON line a second:
how the calls have ended so far.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio

from common.descriptors import allow_many
from common.http2 import DEFAULT_HTTP2
from common.tls import TlsFiles

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

METHOD = "/federation.v1.GatewayService/Register"
MIB = 1 << 20
PAUSE_S = 1.0  # before what was refused is tried again
TICK_S = 0.02


@dataclass(frozen=True)
class Attack:
    """What is done, all at once."""

    half_open: int  # calls by each of those who hold them
    calls_per_s: float  # of the one who floods
    bomb_mib: int  # of zeros, compressed, again and again
    silent: int  # connections on which not even TLS begins


class Attackers:
    """Those who attack, and how their calls have ended."""

    def __init__(self, folder: Path, address: str, attack: Attack) -> None:
        """Present the certificates in `folder`; nothing is done yet."""
        self._folder = folder
        self._address = address
        self._attack = attack
        self._ended: Counter[str] = Counter()
        self._open = 0

    async def run(self, flooding: str, bombing: str, *holding: str) -> None:
        """Attack until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._report())
            tasks.create_task(self._flood(self._channel(flooding)))
            tasks.create_task(self._bomb(self._channel(bombing, bombs=True)))
            for channel in map(self._channel, holding):
                for _ in range(self._attack.half_open):
                    tasks.create_task(self._hold(channel))
            for _ in range(self._attack.silent):
                tasks.create_task(self._say_nothing())

    def _channel(self, name: str, *, bombs: bool = False) -> grpc.aio.Channel:
        keys = self._folder / "keys" / name
        files = TlsFiles(
            authority=keys / "ca.pem", certificate=keys / "cert.pem", key=keys / "key.pem"
        )
        options = [*DEFAULT_HTTP2.client_options(), ("grpc.max_send_message_length", -1)]
        packed = grpc.Compression.Gzip if bombs else grpc.Compression.NoCompression
        credentials = files.channel_credentials()
        return grpc.aio.secure_channel(
            self._address, credentials, options=options, compression=packed
        )

    async def _hold(self, channel: grpc.aio.Channel) -> None:
        begin: Any = channel.stream_unary(METHOD, request_serializer=bytes)
        while True:
            self._open += 1
            await self._end("half_open", begin(_never()))
            self._open -= 1
            await asyncio.sleep(PAUSE_S)

    async def _flood(self, channel: grpc.aio.Channel) -> None:
        call: Any = channel.unary_unary(METHOD, request_serializer=bytes)
        due = 0.0
        under_way: set[asyncio.Task[None]] = set()
        while True:
            due += self._attack.calls_per_s * TICK_S
            for _ in range(int(due)):
                task = asyncio.create_task(self._end("flood", call(b"\x08\x01")))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            due -= int(due)
            await asyncio.sleep(TICK_S)

    async def _bomb(self, channel: grpc.aio.Channel) -> None:
        call: Any = channel.unary_unary(METHOD)
        bomb = bytes(self._attack.bomb_mib * MIB)
        while True:
            await self._end("bomb", call(bomb))
            await asyncio.sleep(PAUSE_S)

    async def _say_nothing(self) -> None:
        host, _, port = self._address.rpartition(":")
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(host, int(port))
                await reader.read()
                writer.close()
            self._ended["silent closed"] += 1
            await asyncio.sleep(PAUSE_S)

    async def _end(self, what: str, call: Any) -> None:
        try:
            await call
        except grpc.aio.AioRpcError as error:
            ended = f"{what} {error.code().name}"
            if ended not in self._ended:
                print(ended, error.details(), flush=True)
            self._ended[ended] += 1
        else:
            self._ended[f"{what} OK"] += 1

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            print(json.dumps({"open": self._open, **self._ended}), flush=True)


async def _never() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


if __name__ == "__main__":
    allow_many()
    where, orchestrator, asked, *names = sys.argv[1:]
    attackers = Attackers(Path(where), orchestrator, Attack(**json.loads(asked)))
    asyncio.run(attackers.run(*names))
