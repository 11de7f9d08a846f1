"""A whole federation in one thread, from one seed; `make simulate SEEDS=0:1000`."""

from __future__ import annotations

from common import transfer

transfer.CHUNK_BYTES = 128  # so that bodies of a few hundred bytes travel in pieces
