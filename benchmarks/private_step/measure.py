"""Time, memory and error of each method on one model and batch.

Times are taken in turn, so that what else the machine does meets all methods alike. Memory is
taken in a process of its own for each method.
"""

from __future__ import annotations

import copy
import gc
import resource
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.private_step.methods import METHODS, ClippedSum, Method, Setting, flat, trained
from benchmarks.private_step.models import Batch, built, loss, sentences
from common.clock import SystemClock

Figures: TypeAlias = dict[str, Any]  # as they stand in a line of the results
Found = TypeVar("Found")

IN_ORDER = (
    "error",
    "ms_min",
    "ms_median",
    "ratio_nonprivate",
    "peak_mib",
    "max_abs_error",
    "norm_raised_by",
    "steps",
    "note",
)
STEPS_FOR_PEAK = 3
CHECKED = 8  # sentences in the check against float64
SLOW_S = 5.0  # a step that takes longer is taken less often
LEAST_STEPS = 5
LEAST_SLOW_STEPS = 2
MOST_SHARE = 4.0  # times the quickest method's time: a method that takes more passes turns
PROCESS_STATUS = Path("/proc/self/status")
CLEAR_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Group:
    """What is measured together."""

    model: str
    records: int
    methods: tuple[str, ...]
    seconds: float
    threads: int


@dataclass
class Timed:
    """A method and how long its steps took."""

    method: Method
    least: int = LEAST_STEPS
    every: int = 1  # in how many turns it steps once
    took: list[float] = field(default_factory=list)


def measured(group: Group) -> list[Figures]:
    """Return the figures of each method of a group."""
    peaks = {name: _in_child(partial(_peak, name), group) for name in group.methods}
    able = tuple(name for name in group.methods if "error" not in peaks[name])
    rest = Group(group.model, group.records, able, group.seconds, group.threads)
    times = _in_child(_times_and_errors, rest) if able else {}
    if "error" in times:  # of the process itself
        times = dict.fromkeys(able, times)
    plain = times.get("non_private", {}).get("ms_min")
    return [
        _line(group, name, {**peaks[name], **times.get(name, {})}, plain) for name in group.methods
    ]


def _line(group: Group, name: str, found: Figures, plain: float | None) -> Figures:
    """Return a method's figures in the order in which they are read."""
    if "ms_min" in found and plain:
        found["ratio_nonprivate"] = round(found["ms_min"] / plain, 4)
    keys = [key for key in IN_ORDER if key in found]
    keyed = {key: found[key] for key in keys}
    return {"model": group.model, "batch": group.records, "method": name, **keyed}


def _in_child(work: Callable[[Group], Figures], group: Group) -> Figures:
    """Return what `work` finds in a fresh process, or that the process died."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as child:
        try:
            return child.submit(_prepared, work, group).result()
        except BrokenProcessPool:
            return {"error": "the process was killed, which is what happens when memory ends"}


def _prepared(work: Callable[[Group], Figures], group: Group) -> Figures:
    torch.set_num_threads(group.threads)
    warnings.simplefilter("ignore")  # of the other libraries, at every step
    return work(group)


def _peak(name: str, group: Group) -> Figures:
    """Return the most memory that this process had during a few steps; or why there are none."""
    batch = sentences(group.records)
    try:
        method = METHODS[name](built(group.model), Setting(group.records))
        gc.collect()
        with suppress(OSError):
            CLEAR_PEAK.write_text("5")  # see proc(5)
        for _ in range(STEPS_FOR_PEAK):
            method.step(batch)
    except Exception as error:  # noqa: BLE001 (whatever a library raises is its result)
        what = str(error).strip().split("\n", maxsplit=1)[0]
        return {"error": f"{name} cannot train {group.model}: {type(error).__name__}: {what}"}
    note = {"note": method.note} if method.note else {}
    return {"peak_mib": round(_peak_mib(), 1), **note}


def _peak_mib() -> float:
    if PROCESS_STATUS.exists():
        for line in PROCESS_STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # where there is no /proc


def _times_and_errors(group: Group) -> Figures:
    """Return each method's times and error, by its name."""
    model = built(group.model)
    errors = _errors(model, group)
    gc.collect()
    setting = Setting(group.records)
    timed = {name: Timed(METHODS[name](copy.deepcopy(model), setting)) for name in group.methods}
    take_turns(list(timed.values()), sentences(group.records), group.seconds)
    return {
        name: {
            "ms_min": round(1e3 * min(each.took), 3),
            "ms_median": round(1e3 * median(each.took), 3),
            "steps": len(each.took),
            **errors[name],
        }
        for name, each in timed.items()
    }


def take_turns(methods: list[Timed], batch: Batch, seconds: float) -> None:
    """Let all methods step in turn until the time is over and each has stepped enough.

    Each steps once or twice before, to warm up; the slow ones then pass turns.
    """
    clock = SystemClock()

    def step(each: Timed) -> float:
        start = clock.now()
        each.method.step(batch)
        return clock.now() - start

    warm = []
    for each in methods:
        took = step(each)
        if took > SLOW_S:
            each.least = LEAST_SLOW_STEPS
        else:
            took = step(each)
        warm.append(took)
    for each, took in zip(methods, warm, strict=True):
        each.every = max(1, round(took / (MOST_SHARE * min(warm))))
    end = clock.now() + seconds
    for turn in count():
        if clock.now() >= end and all(len(each.took) >= each.least for each in methods):
            return
        for each in methods:
            if turn % each.every == 0:
                each.took.append(step(each))


def _errors(model: nn.Module, group: Group) -> dict[str, Figures]:
    """Return how far each method's clipped sum is from the one of float64."""
    batch = sentences(min(CHECKED, group.records))
    rows = _exact_rows(model, batch)
    norms = rows.norm(dim=1)
    setting = Setting(len(batch[0]), float(norms.median()))
    found = {}
    for name in group.methods:
        clipped = METHODS[name](copy.deepcopy(model), setting).clipped_sum(batch)
        found[name] = _error(clipped, rows, norms, setting.clipping_norm)
    return found


def _error(
    clipped: ClippedSum | None, rows: Tensor, norms: Tensor, clipping_norm: float
) -> Figures:
    """Compare with rows clipped by the norms that the method itself used, if it tells them."""
    if clipped is None:
        return {"max_abs_error": None}
    used = norms if clipped.norms is None else clipped.norms
    factors = (clipping_norm * (1 - clipped.margin) / used).clamp(max=1.0)
    off = float((clipped.total.double() - factors @ rows).abs().max()) / clipping_norm
    found: Figures = {"max_abs_error": float(f"{off:.3g}")}
    if clipped.norms is not None:
        found["norm_raised_by"] = float(f"{float((used / norms - 1).max()):.3g}")
    return found


def _exact_rows(model: nn.Module, batch: Batch) -> Tensor:
    """Return each sentence's gradient in float64, shape (sentences, parameters)."""
    exact = copy.deepcopy(model).double()
    parameters = list(trained(exact).values())
    rows = []
    for row in range(len(batch[0])):
        one = tuple(x[row : row + 1] for x in batch)
        rows.append(flat(torch.autograd.grad(loss(exact, one).sum(), parameters)))
    return torch.stack(rows)
