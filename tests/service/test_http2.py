"""What each side says of its window on the wire: gRPC takes the setting, exactly."""

from __future__ import annotations

import asyncio
import struct

import grpc.aio

from common.http2 import MIB, Http2Settings
from tests.tapping import PREFACE

SETTINGS, INITIAL_WINDOW_SIZE = 4, 4
WIDE = Http2Settings(window_mib=3.5)


async def said_window(reader: asyncio.StreamReader) -> int:
    """Return the window of the first frame, which holds the settings (RFC 9113, section 6.5)."""
    head = await reader.readexactly(9)
    assert head[3] == SETTINGS
    body = await reader.readexactly(int.from_bytes(head[:3], "big"))
    return dict(struct.iter_unpack(">HI", body))[INITIAL_WINDOW_SIZE]


async def test_a_client_says_the_window_of_its_downloads():
    said: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(len(PREFACE)) == PREFACE
        said.set_result(await said_window(reader))
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with (
        server,
        grpc.aio.insecure_channel(f"{host}:{port}", options=WIDE.client_options()) as channel,
    ):
        channel.get_state(try_to_connect=True)
        assert await said == 3.5 * MIB


async def test_a_server_says_the_window_of_its_uploads():
    server = grpc.aio.server(options=WIDE.server_options())
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(PREFACE + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
    assert await said_window(reader) == 3.5 * MIB
    writer.close()
    await server.stop(None)
