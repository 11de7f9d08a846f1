"""Kernels made into machine code, and run by the threads that torch has."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from private_step.kernel import Kernel

Argument: TypeAlias = Tensor | int | float
LEADING = 2  # values before a kernel's arguments: parts begun, parts in all
NAME_IN_TORCH = "GOMP_parallel"  # how compilers start a team of threads (libgomp's ABI)


@dataclass(frozen=True)
class Code:
    """Machine code of one kernel."""

    address: int
    owner: Any  # what frees the code

    def call(self, *arguments: Argument) -> Call:
        """Return a call of the kernel; arguments stay the same until they are changed."""
        return Call(self, arguments)


class Call:
    """A kernel with its arguments."""

    def __init__(self, code: Code, arguments: tuple[Argument, ...]) -> None:
        self._code = code
        self._kept = arguments  # tensors live as long as their addresses are used
        self._frame = np.array([0, 0, *map(_as_word, arguments)], np.int64)
        self._pointer = ctypes.c_void_p(self._frame.ctypes.data)

    def run(self, parts: int, *first: int) -> None:
        """Run all parts, in as many threads as torch has; `first` replaces the first arguments."""
        frame = self._frame
        frame[0], frame[1] = 0, parts
        frame[LEADING : LEADING + len(first)] = first
        threads = min(torch.get_num_threads(), parts)
        team = _team() if threads > 1 else None
        if team is None:
            _function(self._code.address)(self._pointer)
        else:
            team(self._code.address, self._pointer, threads, 0)


def compiled(kernel: Kernel) -> Code:
    """Return the machine code of a kernel, for this processor."""
    import llvmlite.binding as llvm  # noqa: PLC0415 (40 MiB, for large models only)

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    kernel.module.triple = machine.triple
    module = llvm.parse_assembly(str(kernel.module))
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=2))
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Code(engine.get_function_address(kernel.module.name), engine)


def has_wide_registers() -> bool:
    """Whether this processor has 32 registers of 16 float32 values."""
    import llvmlite.binding as llvm  # noqa: PLC0415 (as above)

    return bool(llvm.get_host_cpu_features().get("avx512f", False))


def _as_word(argument: Argument) -> int:
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    if isinstance(argument, float):
        return int(np.float64(argument).view(np.int64))
    return argument


@cache
def _function(address: int) -> Callable[[ctypes.c_void_p], None]:
    found: Callable[[ctypes.c_void_p], None] = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
    return found


@cache
def _team() -> Callable[[int, ctypes.c_void_p, int, int], None] | None:
    """Return what runs a function in torch's own team of threads; None: torch has another kind.

    Threads of our own would wait for torch's, which keep their processors busy for milliseconds
    after each of torch's operations, so as to be there for the next.
    """
    try:
        # torch's extension brings the library that torch itself starts its threads with
        start: Any = getattr(ctypes.CDLL(torch._C.__file__), NAME_IN_TORCH)  # noqa: SLF001
    except (OSError, AttributeError):
        return None
    start.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    start.restype = None
    found: Callable[[int, ctypes.c_void_p, int, int], None] = start
    return found
