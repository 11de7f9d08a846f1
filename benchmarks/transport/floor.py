"""The floor of a round: the same bytes over raw TCP sockets, and nothing else.

One process for each gateway, as in a real round. All receive the model at the same time and send
as many bytes back, each as soon as it has them. The server sends from memory and takes what comes
into one block per connection; a gateway receives into memory that it uses again.

A durable floor also writes what a real round writes: a gateway its update, fsynced with its name,
before it is sent; the server what arrives, not fsynced, and at the end the model, fsynced with its
name.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time  # noqa: TID251 - measures
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import ROOT
from benchmarks.transport.running import Running
from common.disk import SYSTEM_DISK

MIB = 1 << 20
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Work:
    """What one round moves."""

    mib: int  # of the model
    gateways: int
    folder: Path  # where the files lie
    durable: bool

    @property
    def byte_length(self) -> int:
        """Of the model, in bytes."""
        return self.mib * MIB


class Floor(Running):
    """Processes that are connected and wait for rounds; `with` it."""

    def __init__(self, work: Work) -> None:
        """Prepare the work of one round."""
        super().__init__()
        self._work = work
        self._connections: list[socket.socket] = []
        self._model = memoryview(os.urandom(MIB) * work.mib)

    def _begin(self) -> None:
        self._work.folder.mkdir(parents=True, exist_ok=True)
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(PATIENCE_S)
        for number in range(self._work.gateways):
            self._start(number, listener.getsockname()[1])
            connection, _ = listener.accept()
            self._connections.append(self._stack.enter_context(connection))
        threads = ThreadPoolExecutor(self._work.gateways)
        self._threads = self._stack.enter_context(threads)

    def round(self) -> float:
        """Return the seconds of one round."""
        began = time.perf_counter()
        list(self._threads.map(self._serve, range(self._work.gateways)))
        if self._work.durable:
            write_durably(self._work.folder / "floor_published", self._model)
        return time.perf_counter() - began

    def _start(self, number: int, port: int) -> None:
        update = str(self._work.folder / f"floor_update_{number}") if self._work.durable else ""
        command = [sys.executable, "-m", __name__, str(port), str(self._work.byte_length), update]
        process = subprocess.Popen(command, cwd=ROOT)  # noqa: S603 - ours
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)

    def _serve(self, number: int) -> None:
        connection, block = self._connections[number], memoryview(bytearray(MIB))
        connection.sendall(self._model)
        with ExitStack() as stack:
            part = None
            if self._work.durable:
                path = self._work.folder / f"floor_part_{number}"
                part = stack.enter_context(path.open("wb", buffering=0))
            left = self._work.byte_length
            while left:
                got = connection.recv_into(block, min(MIB, left))
                if not got:
                    raise ConnectionError(f"gateway {number} left {left} bytes before the end")
                left -= got
                if part is not None:
                    part.write(block[:got])


def write_durably(path: Path, data: memoryview) -> None:
    """Write a file as a real round does: under another name, fsync, rename, fsync the folder."""
    fresh = path.with_suffix(".new")
    with SYSTEM_DISK.create(fresh) as file:
        file.write(data, 0)
        file.sync()
    SYSTEM_DISK.rename(fresh, path)
    SYSTEM_DISK.sync_folder(path.parent)


def take_part(port: int, byte_length: int, update: str) -> None:
    """Be one gateway: receive, perhaps write, send, until the server goes away."""
    data = memoryview(bytearray(byte_length))
    with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as connection:
        while True:
            held = 0
            while held < byte_length:
                got = connection.recv_into(data[held:])
                if not got:
                    return
                held += got
            if update:
                write_durably(Path(update), data)
            connection.sendall(data)


if __name__ == "__main__":
    take_part(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
