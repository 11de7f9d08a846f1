"""A switch in user space, and the hosts on it: each a network namespace with a cable to the switch.

    python -m tests.hosts.switch HOSTS CONGESTION_CONTROL

Namespaces and cables (TAP devices) have no name outside this process and end with it. It works
where the kernel has no netem: each cable has a loss, a delay, a rate and a queue in either
direction, and can be cut; a host can lie behind a firewall. The first line on stdout names the
namespaces; then each line on stdin sets one cable and is answered by the bytes carried so far. The
process ends when stdin does.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random  # noqa: TID251 - a seeded generator per cable
import select
import struct
import subprocess
import sys
import time  # noqa: TID251 - the wires' own clock
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

NET = "10.77.0"
SEED = 5
BATCH = 64  # frames from one cable before the others get their turn
QUEUE_S = 0.25  # the longest that a frame waits for a narrow cable: more are dropped
CLONE_NEWNET, TUNSETIFF, TAP_WITHOUT_HEADER = 0x40000000, 0x400454CA, 0x1002
BROADCAST = b"\xff" * 6
ARP, IPV4, TCP, SYN, ACK = b"\x08\x06", b"\x08\x00", 6, 0x02, 0x10
# as Linux comes, whatever this machine is set to: a wide-area link is limited by them too
STOCK = {
    "ipv6/conf/all/disable_ipv6": "1",
    "ipv4/tcp_rmem": "4096 131072 6291456",
    "ipv4/tcp_wmem": "4096 16384 4194304",
}
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass
class Wire:
    """One direction of a cable."""

    delay_s: float = 0.0
    loss: float = 0.0  # the share of frames that vanish
    bits_per_s: float = 0.0  # 0: no limit
    cut: bool = False
    carried: int = 0  # bytes
    busy_until: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(SEED))  # noqa: S311

    def arrival(self, now: float, length: int) -> float | None:
        """Return when a frame that enters now comes out; None if it never does."""
        if self.cut or (self.loss and self.chance.random() < self.loss):
            return None
        begin = max(now, self.busy_until)
        if begin - now > QUEUE_S:
            return None
        self.busy_until = begin + (8 * length / self.bits_per_s if self.bits_per_s else 0.0)
        self.carried += length
        return self.busy_until + self.delay_s


@dataclass
class Host:
    """A namespace and its cable."""

    tap: int
    namespace: int
    up: Wire = field(default_factory=Wire)  # what the host sends
    down: Wire = field(default_factory=Wire)
    is_closed: bool = False  # a firewall lets it dial out, and nobody in

    def takes(self, frame: bytes) -> bool:
        """Whether a frame may come in: behind the firewall, of a connection that it has opened."""
        return not self.is_closed or frame[12:14] == ARP or _is_of_an_open_connection(frame)


class Switch:
    """Carries frames between hosts by their MAC addresses, each at its time."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = {host.tap: host for host in hosts}
        self._by_mac: dict[bytes, Host] = {}
        self._under_way: list[tuple[float, int, int, bytes, Host | None]] = []
        self._count = 0

    def wait_s(self, now: float) -> float:
        """Return how long nothing is due."""
        return max(0.0, self._under_way[0][0] - now) if self._under_way else 1.0

    def take(self, host: Host) -> None:
        """Take what a host sends."""
        with suppress(BlockingIOError):
            for _ in range(BATCH):
                frame = os.read(host.tap, 65536)
                self._by_mac[frame[6:12]] = host
                self._put(host.up, frame, host, None)

    def deliver(self) -> None:
        """Pass on what has come through one wire: into the next, or to its host."""
        while self._under_way and self._under_way[0][0] <= time.monotonic():
            _, _, sender, frame, receiver = heapq.heappop(self._under_way)
            if receiver is not None:
                with suppress(OSError):  # its queue is full
                    os.write(receiver.tap, frame)
                continue
            for to in self._receivers(frame, sender):
                if to.takes(frame):
                    self._put(to.down, frame, self.hosts[sender], to)

    def _receivers(self, frame: bytes, sender: int) -> Iterator[Host]:
        known = self._by_mac.get(frame[:6])
        if known is not None:
            yield known
        elif frame[:6] == BROADCAST:
            yield from (host for tap, host in self.hosts.items() if tap != sender)

    def _put(self, wire: Wire, frame: bytes, sender: Host, receiver: Host | None) -> None:
        due = wire.arrival(time.monotonic(), len(frame))
        if due is not None:
            self._count += 1  # frames that are due at once keep their order
            item = (due, self._count, sender.tap, frame, receiver)
            heapq.heappush(self._under_way, item)


def _is_of_an_open_connection(frame: bytes) -> bool:
    """Whether a frame is of TCP and opens nothing: filters call that `established`."""
    header = 4 * (frame[14] & 0x0F)
    is_first = not int.from_bytes(frame[20:22], "big") & 0x1FFF  # no later piece of a packet
    if frame[12:14] != IPV4 or frame[23] != TCP or not is_first or len(frame) < 28 + header:
        return False
    return frame[14 + header + 13] & (SYN | ACK) != SYN


def make_host(number: int, congestion: str) -> Host:
    """Return a new namespace with `eth0`, which is a cable that this process holds."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    _checked(LIBC.unshare(CLONE_NEWNET), "unshare")
    namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", TAP_WITHOUT_HEADER))
    for name, value in STOCK.items():
        Path("/proc/sys/net", name).write_text(value)
    with suppress(OSError):  # a kernel that does not lend that one to namespaces keeps its own
        Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text(congestion)
    for arguments in (
        "link set lo up",
        f"link set eth0 address 02:77:00:00:00:{number:02x} txqueuelen 10000 up",
        f"addr add {NET}.{number}/24 dev eth0",
    ):
        subprocess.run(["ip", *arguments.split()], check=True)
    _checked(LIBC.setns(home, CLONE_NEWNET), "setns")
    os.close(home)
    return Host(tap, namespace)


def _checked(result: int, what: str) -> None:
    if result:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def apply(hosts: list[Host], line: str) -> None:
    """Set a cable as `line` says, both directions alike."""
    said = json.loads(line)
    host = hosts[said.pop("host") - 1]
    host.is_closed = said.pop("is_closed", host.is_closed)
    for wire in (host.up, host.down):
        for name, value in said.items():
            setattr(wire, name, value)


def main(count: int, congestion: str) -> None:
    """Switch until stdin ends."""
    os.nice(-10)  # a cable does not wait for who uses it
    hosts = [make_host(number, congestion) for number in range(1, count + 1)]
    switch = Switch(hosts)
    ready = select.epoll()
    for each in (sys.stdin.fileno(), *switch.hosts):
        ready.register(each, select.EPOLLIN)
    namespaces = [f"/proc/{os.getpid()}/fd/{host.namespace}" for host in hosts]
    print(json.dumps(namespaces), flush=True)  # noqa: T201 - the answer
    while True:
        switch.deliver()
        for number, _ in ready.poll(switch.wait_s(time.monotonic())):
            if number in switch.hosts:
                switch.take(switch.hosts[number])
                continue
            line = sys.stdin.readline()
            if not line:
                return
            apply(hosts, line)
            carried = [[host.up.carried, host.down.carried] for host in hosts]
            print(json.dumps(carried), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
