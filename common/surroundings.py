"""What a process finds around it: its machine, and the way to an address."""

from __future__ import annotations

import os
import platform
import socket
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from common.dates import check_clocks, in_words
from common.disk import SYSTEM_DISK
from common.errors import RequestError, UnavailableError
from common.renewing import due, present
from common.unreachable import HostUnknown, host_of, proxy_for
from common.version import SOFTWARE_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from common.certificates import Certificate
    from common.disk import Disk
    from common.findings import Findings
    from common.tls import TlsFiles

MIB, GIB = 1 << 20, 1 << 30
_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


class NoSpace(UnavailableError):
    """A disk has too little room for what is written there."""

    field = "state"

    def __init__(self, folder: Path, *, free: int, least: int) -> None:
        super().__init__(
            f"{folder}: its disk has {free // MIB} MiB free, at least {least // MIB} are needed: "
            "make room there, or let `state` name a folder on another disk"
        )


class StateNotWritable(RequestError):
    """A folder for all that a process keeps cannot be made, or not written to."""

    field = "state"

    def __init__(self, state: Path, error: OSError) -> None:
        super().__init__(
            f"the state folder {state} cannot be written to ({error.strerror}): give it to the "
            "user that this process runs as, or let `state` name another folder"
        )


@contextmanager
def writing_to(state: Path) -> Iterator[None]:
    """Lend a place to write to such a folder from; raise StateNotWritable where a disk refuses."""
    try:
        yield
    except OSError as error:
        raise StateNotWritable(state, error) from error


def look_at_software(findings: Findings) -> None:
    """Say which software this is, on which Python."""
    findings.ok("software", f"fedgate {SOFTWARE_VERSION} on Python {platform.python_version()}")


def look_at_certificate(findings: Findings, files: TlsFiles, now: datetime) -> Certificate | None:
    """Say whose certificate it is, whether its key fits and how long it lasts."""
    with findings.looking_at("certificate"):
        found = present(files)
        files.check_in_force(now)
        left = in_words(found.ends - now)
        message = f"{found.identity.uri}, good for {left} more, and its key fits"
        if now > due(found):
            findings.warn(
                "certificate",
                f"{files.certificate} is good for {left} more and should have been renewed: see "
                "that the orchestrator enrols ([enrolment] in its settings), or enrol anew",
            )
        else:
            findings.ok("certificate", message)
        return found
    return None


def look_at_way(findings: Findings, addresses: Sequence[str]) -> None:
    """Say where names lead; where there is a proxy, that is its business."""
    for address in addresses:
        if proxy_for(address, os.environ) is None:
            with findings.looking_at("host name"):
                findings.ok("host name", f"{address} is at {', '.join(_found(address))}")


def look_at_proxy(findings: Findings, addresses: Sequence[str]) -> None:
    """Warn of a proxy that calls go through and come back from: it may not bear long streams."""
    for address in addresses:
        if (proxy := proxy_for(address, os.environ)) is not None:
            variable, where = proxy
            findings.warn(
                "proxy",
                f"{address} is called through the proxy {where} ({variable} in the environment): "
                f"set no_proxy={host_of(address)} unless it keeps connections open for hours",
            )


def _found(address: str) -> list[str]:
    host, port = host_of(address), int(address.rpartition(":")[2])
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, OverflowError, UnicodeError) as error:
        raise HostUnknown(address) from error
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def look_at_clock(findings: Findings, now: datetime, date: datetime | None) -> None:
    """Compare this machine's clock with the date of an answer."""
    if date is None:
        findings.ok("clock", f"{now:%Y-%m-%d %H:%M} UTC; this orchestrator does not say its own")
        return
    with findings.looking_at("clock"):
        apart = check_clocks(now, date)
        findings.ok("clock", f"within {max(1, abs(apart).seconds)} s of the orchestrator's")


def look_at_space(findings: Findings, folder: Path, least: int, disk: Disk = SYSTEM_DISK) -> None:
    """Say how much room the disk of `folder` has, which need not be there yet."""
    free = disk.free(nearest(folder))
    message = f"{free / GIB:.1f} GiB free for {folder}"
    if free >= least:
        findings.ok("disk", message)
        return
    findings.problem("disk", NoSpace(folder, free=free, least=least))


def look_at_state(findings: Findings, state: Path) -> None:
    """Say whether a folder can be written to, or made; makes nothing that stays."""
    with findings.looking_at("state"):
        try:
            with tempfile.TemporaryFile(dir=nearest(state)):
                pass
        except OSError as error:
            raise StateNotWritable(state, error) from error
        findings.ok("state", f"{state} can be written to")


def nearest(folder: Path) -> Path:
    """Return a folder, or the nearest one above it that is there."""
    whole = folder.absolute()
    return next(each for each in (whole, *whole.parents) if each.exists())


def look_at_memory(findings: Findings, least: int) -> None:
    """Say how much memory there is for this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # no container, or one without a limit
        total = min(total, int(_MEMORY_LIMIT.read_text(encoding="utf-8")))
    if total >= least:
        findings.ok("memory", f"{total / GIB:.1f} GiB")
        return
    findings.warn(
        "memory",
        f"this machine or container has {total // MIB} MiB, training takes {least // MIB} or "
        "more: give it more, or lower `micro_batch`",
    )
