"""Many processes on one event loop of virtual time: nothing waits, and a seed decides the order.

Every callback belongs to the process in whose context it was made. Within a process callbacks run
in the order in which they were made, as asyncio promises; which process is next is free, and drawn.
Threads are callbacks too, so that nothing here runs beside anything else.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime, timedelta
from itertools import count
from random import Random
from typing import Any

PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
EPOCH = datetime(2030, 1, 1, tzinfo=UTC)
TICK_S = 1e-6  # more than what rounding loses in a sum of seconds


class Crashed(BaseException):
    """The process that ran this is no more; nobody may catch it."""


class Stuck(Exception):
    """Nothing is ready, nothing will be, and the simulation has not ended."""


class Task(asyncio.Task):
    """A task whose place in a set is the same in every run of a seed."""

    serials = count()

    def __init__(self, *args, **kwargs) -> None:
        self._serial = next(Task.serials)
        super().__init__(*args, **kwargs)

    def __hash__(self) -> int:
        return self._serial


class Future(asyncio.Future):
    """A future whose place in a set is the same in every run of a seed."""

    def __init__(self, **kwargs) -> None:
        self._serial = next(Task.serials)
        super().__init__(**kwargs)

    def __hash__(self) -> int:
        return self._serial


class Process:
    """What is scheduled, paused and killed as one."""

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self.name = name
        self.loop = loop
        self.alive = True
        self.paused_until = 0.0
        self.crash_rate = 0.0  # before each callback
        self.ready: deque[asyncio.Handle] = deque()
        self.tasks: dict[Task, None] = {}
        self.at_end: list[Callable[[], None]] = []  # what an operating system does for the dead
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        loop.processes.append(self)

    def __repr__(self) -> str:
        return self.name

    def spawn(self, work: Coroutine[Any, Any, Any], name: str = "") -> Task:
        """Begin `work` in this process."""
        return self.loop.create_task(work, name=name, context=self.context.copy())

    def call_later(self, delay_s: float, work: Callable[..., None], *args: object) -> None:
        """Call `work` in this process."""
        self.loop.call_later(delay_s, work, *args, context=self.context.copy())

    def kill(self) -> None:
        """End it where it stands: no task of it takes another step that anyone could see."""
        if not self.alive:
            return
        self.alive = False
        self.ready.clear()
        self.loop.processes.remove(self)
        for end in reversed(self.at_end):
            end()
        running = asyncio.current_task(self.loop)
        for task in list(self.tasks):
            if task is not running and not task.done():
                task._log_destroy_pending = False
                with suppress(Crashed, Exception):
                    self.context.copy().run(task.get_coro().close)
        self.tasks.clear()

    def pause(self, seconds: float) -> None:
        """Let nothing of it run for a while; what is due then, comes then."""
        self.paused_until = max(self.paused_until, self.loop.time() + seconds)
        self.loop.call_later(seconds + TICK_S, lambda: None)


class _Ready:
    """Stands where asyncio keeps what is ready; each handle goes to its process."""

    def __init__(self, nobody: Callable[[], Process]) -> None:
        self._nobody = nobody

    def append(self, handle: asyncio.Handle) -> None:
        process = handle._context.get(PROCESS) or self._nobody()
        if process.alive:
            process.ready.append(handle)

    def clear(self) -> None:
        pass

    def __len__(self) -> int:
        return 0


class SimulatedLoop(asyncio.BaseEventLoop):
    """An event loop whose time is a number."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.now = 0.0
        self.steps = 0
        self.processes: list[Process] = []
        self.world = Process(self, "world")
        self.about_to_crash: Callable[[Process], None] = Process.kill
        self.thread_delay: Callable[[], float] = lambda: 0.0
        self._ready = _Ready(lambda: self.world)
        self._last_of_thread: dict[int, float] = {}
        self._owners: dict[int, Process] = {}  # of asynchronous generators, by identity
        self._selector = None
        self.set_task_factory(self._make_task)
        self.slow_callback_duration = 1e9

    def time(self) -> float:
        return self.now

    def create_future(self) -> Future:
        return Future(loop=self)

    def _make_task(self, loop, coro, **options) -> Task:
        task = Task(coro, loop=loop, **options)
        process = (options.get("context") or copy_context()).get(PROCESS) or self.world
        if process.alive:
            process.tasks[task] = None
            task.add_done_callback(lambda done: process.tasks.pop(done, None))
        else:
            task._log_destroy_pending = False
        return task

    def run_in_executor(self, executor, func, *args) -> Future:
        """Run `func` later in the same process, as one of its callbacks; one thread keeps order."""
        if getattr(executor, "_shutdown", False):
            raise RuntimeError("cannot schedule new futures after shutdown")
        future, when = self.create_future(), self.now + self.thread_delay()
        if getattr(executor, "_max_workers", 0) == 1:
            when = max(when, self._last_of_thread.get(id(executor), 0.0) + TICK_S)
            self._last_of_thread[id(executor)] = when
        self.call_at(when, self._in_thread, future, func, args)
        return future

    def _in_thread(self, future: Future, func, args) -> None:
        if future.cancelled() and self.random.random() < 0.5:
            return  # cancelled before a thread took it; else it runs, and nobody hears of it
        try:
            result = func(*args)
        except Crashed:
            return
        except BaseException as error:  # noqa: BLE001  # a thread hands on whatever it meets
            if not future.cancelled():
                future.set_exception(error)
        else:
            if not future.cancelled():
                future.set_result(result)

    def _run_once(self) -> None:
        self._fire()
        while (process := self._next()) is None:
            self._advance()
            self._fire()
        handle = process.ready.popleft()
        if handle._cancelled:
            return
        self.steps += 1
        if process.crash_rate and self.random.random() < process.crash_rate:
            self.about_to_crash(process)
            return
        handle._run()

    def _next(self) -> Process | None:
        able = [p for p in self.processes if p.ready and p.paused_until <= self.now]
        if len(able) < 2:
            return able[0] if able else None
        return able[self.random.randrange(len(able))]

    def _fire(self) -> None:
        scheduled = self._scheduled
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            if not handle._cancelled:
                self._ready.append(handle)

    def _advance(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._scheduled:
            raise Stuck
        self.now = max(self.now, self._scheduled[0]._when)

    def _timer_handle_cancelled(self, handle) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def _process_events(self, event_list) -> None:
        pass

    def _asyncgen_firstiter_hook(self, agen) -> None:
        super()._asyncgen_firstiter_hook(agen)
        self._owners[id(agen)] = PROCESS.get() or self.world

    def _asyncgen_finalizer_hook(self, agen) -> None:
        self._asyncgens.discard(agen)
        owner = self._owners.pop(id(agen))  # whoever lets it go may be another: it ended its owner
        if owner.alive:
            context = owner.context.copy()
            self.call_soon(self.create_task, agen.aclose(), context=context)


class SimulatedClock:
    """One machine's clocks: they begin anywhere, run at their own rate, and the wall's jumps."""

    def __init__(self, loop: SimulatedLoop, *, start: float, rate: float) -> None:
        self._loop = loop
        self._start = start
        self._rate = rate
        self.jump_s = 0.0

    def now(self) -> float:
        return self._start + self._loop.time() * self._rate

    def wall(self) -> datetime:
        return EPOCH + timedelta(seconds=self._loop.time() + self.jump_s)

    async def sleep_until(self, deadline: float) -> None:
        await asyncio.sleep(max(0.0, (deadline - self.now()) / self._rate + TICK_S))
