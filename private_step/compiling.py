"""Plain loops, compiled by Numba at their first use, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeAlias

Loop: TypeAlias = Callable[..., None]

#: What LLVM may assume: all but the reordering of sums, which would change what comes out.
FAST = frozenset({"contract", "arcp", "nsz", "nnan", "ninf", "afn"})


def compiled_with(loop: Loop, *inner: Loop) -> Loop | None:
    """Return `loop` compiled, with the `inner` ones that it calls; None without Numba.

    All of them are functions of one module, which stay as they are.
    """
    try:
        import numba  # noqa: PLC0415 (a third of a second, for large models only)
    except ImportError:
        return None
    jit: Any = numba.njit(nogil=True, fastmath=set(FAST), error_model="numpy")
    assert isinstance(loop, FunctionType)  # noqa: S101 (for the type checker)
    names = {**loop.__globals__, **{each.__name__: jit(each) for each in inner}}
    found: Loop = jit(FunctionType(loop.__code__, names, loop.__name__))
    return found
