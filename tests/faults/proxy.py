"""A wire between a gateway and its orchestrator that counts what is sent, and can be held still."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 1 << 16
ROOM = 1 << 18  # of a socket: what is in it when a connection breaks is lost, as it is on a line


class Proxy:
    """Listens on loopback for one gateway; everything goes through it."""

    def __init__(self, target: str) -> None:
        """Pass on to `target`, host:port; nothing need listen there yet."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0  # bytes from the gateway
        self.connections = 0
        self._moves, self._reached = threading.Event(), threading.Event()
        self._moves.set()
        self._hold_at: int | None = None
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @contextmanager
    def held_at(self, sent: int, patience_s: float) -> Iterator[None]:
        """Wait until the gateway has sent so many bytes; until the block's end nothing moves."""
        self._reached.clear()
        self._hold_at = sent
        assert self._reached.wait(patience_s), f"{self.sent} of {sent} bytes in {patience_s} s"
        try:
            yield
        finally:
            self._moves.set()

    def close(self) -> None:
        self._moves.set()
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        """Pass on what comes from either side until one of them ends."""
        self._moves.wait()
        try:
            far = socket.create_connection(self._target)
        except OSError:
            near.close()
            return
        for each in (near, far):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open |= {near, far}
        back = threading.Thread(target=self._pump, args=(far, near), daemon=True)
        back.start()
        self._pump(near, far, is_from_gateway=True)
        back.join()
        self._open -= {near, far}
        near.close()
        far.close()

    def _pump(
        self, source: socket.socket, sink: socket.socket, *, is_from_gateway: bool = False
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                if is_from_gateway:
                    self._count(len(piece))
                self._moves.wait()
                sink.sendall(piece)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _count(self, length: int) -> None:
        self.sent += length
        if self._hold_at is not None and self.sent >= self._hold_at:
            self._hold_at = None
            self._moves.clear()
            self._reached.set()
