"""An exclusive lease on a file, held by the operating system until the process ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from common.disk import OWNER_ONLY
from gateway.charges import LedgerInUse, LedgerUnreadable


class Lease:
    """Held from `take` to `release`; a crash releases it too."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, path: Path) -> Self:
        """Take the lease beside `path`, and see to it that only its owner can read `path`.

        Raises:
            LedgerInUse: another process, or another part of this one, holds it.
            LedgerUnreadable: the folder is missing or may not be written.
        """
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, OWNER_ONLY))
            descriptor = os.open(_beside(path), os.O_RDWR | os.O_CREAT, OWNER_ONLY)
        except OSError as error:
            raise LedgerUnreadable(str(error)) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise LedgerInUse(str(path)) from error
        return cls(descriptor)

    def release(self) -> None:
        """Let the next process in."""
        os.close(self._descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lease beside `path`; makes nothing, and holds it no longer.

    A file alone is no lock: one that a crash has left behind is free.
    """
    try:
        descriptor = os.open(_beside(path), os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.lock")
