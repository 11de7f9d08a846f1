"""Where the state of a measurement lies."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = Path("/dev/shm")  # noqa: S108 - so that no disk is measured


@contextmanager
def state_folder(folder: Path, *, durable: bool) -> Iterator[Path]:
    """Lend a folder below `folder`, or in memory where it need not be durable."""
    parent = folder if durable else MEMORY
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fedgate-bench-", dir=parent) as state:
        yield Path(state).absolute()
