"""How this process gets its memory: blocks of a chunk's size stay on the heap and are used again.

By default glibc gives every block of more than 128 KiB fresh pages from the kernel and returns them
at once, so that each chunk of a body costs more for its pages than for its bytes.
"""

from __future__ import annotations

import ctypes

MIB, GIB = 1 << 20, 1 << 30
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_on_the_heap(largest: int) -> bool:
    """Set glibc's allocator so, once at the start; return whether there was one to set.

    Blocks of more than `largest` bytes still come from the kernel and go back to it, and so does
    what is free at the heap's end beyond as many. One arena serves all threads: what one has let
    go another can use.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library
    settings = {
        _M_MMAP_THRESHOLD: largest,
        _M_TRIM_THRESHOLD: largest,
        _M_TOP_PAD: 4 * MIB,
        _M_ARENA_MAX: 1,
    }
    taken = [mallopt(name, value) for name, value in settings.items()]
    return all(taken)
