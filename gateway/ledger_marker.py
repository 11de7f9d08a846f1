"""The mark beside a ledger which says that it was made, so that a lost one is never begun anew."""

from __future__ import annotations

import os
from pathlib import Path

from common.disk import OWNER_ONLY
from gateway.charges import LedgerUnreadable


def mark_made(path: Path) -> None:
    """Note that the ledger at `path` was made; on the disk, name and all, when this returns.

    Raises:
        LedgerUnreadable: the folder may not be written.
    """
    marker = _marker(path)
    if marker.exists():
        return
    try:
        _sync(marker, os.O_WRONLY | os.O_CREAT)
        _sync(marker.parent, os.O_RDONLY)
    except OSError as error:
        raise LedgerUnreadable(str(error)) from error


def was_made(path: Path) -> bool:
    """Whether there is a ledger at `path`, or should be."""
    return _marker(path).exists() or path.exists()


def refuse_lost(path: Path | None) -> None:
    """Raise LedgerUnreadable if a ledger was made at `path` and is gone, or empty."""
    if path is None:
        return  # in memory
    marker = _marker(path)
    if marker.exists() and not _holds_something(path):
        raise LedgerUnreadable(
            f"{path} is missing or empty, and {marker.name} beside it says that it was made: put "
            "its newest backup there"
        )


def refuse_missing(path: Path | None) -> None:
    """Raise LedgerUnreadable if there is no ledger at `path` to read."""
    if path is None or not _holds_something(path):
        raise LedgerUnreadable(f"there is no ledger at {path} yet")


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.made")


def _holds_something(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags, OWNER_ONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
