"""A whole federation in one thread, from one seed; `make simulate SEEDS=0:1000`."""

from __future__ import annotations

import sys

from common import transfer

# So that bodies of a few hundred bytes travel in pieces; before anything reads it, and never where
# other tests share the process: the seeds have processes of their own.
if "pytest" not in sys.modules:
    transfer.CHUNK_BYTES = 128
