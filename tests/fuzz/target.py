"""What is fuzzed, and the property that every input must keep."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from blake3 import blake3

from common.errors import FederationError

CORPUS = Path(__file__).parent / "corpus"
LONGEST_S = 1.0  # of processor time, for one input


class TooLong(AssertionError):
    """An input took more time than it may."""


@dataclass(frozen=True)
class Target:
    """A place where bytes come in; `run` raises FederationError or nothing."""

    name: str
    run: Callable[[bytes], object]
    seeds: tuple[bytes, ...]  # inputs that are taken, or nearly

    def check(self, data: bytes) -> None:
        """Try one input; raise whatever is no error of ours, or TooLong."""
        begin = time.process_time()
        with suppress(FederationError):
            self.run(data)
        took_s = time.process_time() - begin
        if took_s > LONGEST_S:
            message = f"{len(data)} bytes took {took_s:.1f} s"
            raise TooLong(message)

    @property
    def corpus(self) -> Path:
        """Where the inputs lie that once found something."""
        return CORPUS / self.name

    def found(self) -> tuple[bytes, ...]:
        """Return the inputs that once found something."""
        there = sorted(self.corpus.iterdir()) if self.corpus.is_dir() else []
        return tuple(path.read_bytes() for path in there)

    def keep(self, data: bytes) -> Path:
        """Keep an input that found something; return its file."""
        self.corpus.mkdir(parents=True, exist_ok=True)
        path = self.corpus / blake3(data).hexdigest()[:16]
        path.write_bytes(data)
        return path


def of_file(name: str, suffix: str, read: Callable[[Path], object], *seeds: str) -> Target:
    """Return the target of a reader of files whose name ends in `suffix`."""

    def run(data: bytes) -> None:
        with TemporaryDirectory(prefix="fuzz") as folder:
            path = Path(folder) / f"input{suffix}"
            path.write_bytes(data)
            read(path)

    return Target(name, run, tuple(seed.encode() for seed in seeds))
