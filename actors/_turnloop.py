"""The loop that one actor's code runs on: deterministic, without I/O, entered and left within one plain callback of the host's loop.

It never waits: a turn runs callbacks until none is ready, and whoever still waits then does so until a later turn, in this process or in
another one, where the same callbacks run again in the same order. So tasks and futures hash by the number of their creation, whoever one
cancellation wakes is woken in that order, and time is what the turn says. What needs a socket, a thread or a subprocess is refused where it
is asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import sys
import traceback
import weakref
from asyncio import events
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from types import CodeType, CoroutineType, MethodType
from typing import Any, Final, NoReturn, Protocol, Self, TypeVarTuple, Unpack, final

import anyio

from ._errors import ActorEvicted, NotDurable, TurnDidNotEnd

Ts = TypeVarTuple("Ts")

MAX_CALLBACKS: Final = 100_000  # of one turn, about a tenth of a second of `sleep(0)`: more is taken for a loop without an end
MAX_REDELIVERIES: Final = 100  # of one turn: an asyncio.TaskGroup whose child cleans up takes each, and waits on
MAX_CLOSINGS: Final = 100  # of one coroutine whose clean-up waits again and again
FEW_TASKS: Final = 64
NUMBER_BITS: Final = 12  # of a number that count; a life with more tasks and futures goes on into the seed
LATEST: Final = 253_402_300_799.0  # 9999-12-31T23:59:59Z, the last second that a datetime has


AWAITS_TASKS: Final = frozenset({asyncio.wait.__code__.co_filename, asyncio.TaskGroup.__aexit__.__code__.co_filename})
ANYIO: Final = anyio.__file__.removesuffix("__init__.py")


class Journal(Protocol):
    """Who writes down what the loop is asked for."""

    def timer(self, due: float) -> float:
        """A timer is set; returns the due time that counts, which on replay is the recorded one."""
        ...


@final
class TurnFuture(asyncio.Future[Any]):
    """A future that hashes by its number: CPython and anyio iterate sets of futures."""

    __slots__ = ("number",)

    def __init__(self, loop: TurnLoop) -> None:
        self.number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self.number


@final
class TurnTask(asyncio.Task[Any]):
    """A task that hashes by its number, and is cancelled in its order."""

    __slots__ = ("_turn_loop", "context", "number")

    def __init__(
        self, coro: Coroutine[Any, Any, Any], loop: TurnLoop, *, name: str | None = None, context: contextvars.Context | None = None
    ) -> None:
        self.number = number = loop.next_number()
        self._turn_loop = loop
        self.context = context = contextvars.copy_context() if context is None else context
        super().__init__(coro, loop=loop, name=name or f"Task-{number & ((1 << NUMBER_BITS) - 1)}", context=context)

    def __hash__(self) -> int:
        return self.number

    @property
    def _loop(self) -> NoReturn:  # pyright: ignore[reportIncompatibleVariableOverride]
        # Nothing but anyio.to_thread asks for it by this name, when it is about to start its first thread.
        raise NotDurable("a thread (anyio.to_thread)", CURE)

    @property
    def waits_for(self) -> asyncio.Future[Any] | None:
        """The future that it waits for."""
        return self._fut_waiter  # type: ignore[attr-defined, no-any-return]

    @property
    def waits_for_tasks(self) -> bool:
        """Whether what it waits for is the end of other tasks: one of them, a gathering, a task group, `asyncio.wait`."""
        waiter = self.waits_for
        if isinstance(waiter, asyncio.Task) or not isinstance(waiter, TurnFuture):
            return True
        code = _innermost(self.get_coro())
        return code.co_filename in AWAITS_TASKS or code.co_name == "__aexit__"  # the latter is a task group of anyio's

    def cancel(self, msg: Any | None = None) -> bool:
        """As in asyncio; whoever is woken by it is woken in the order of creation among all that one callback cancels."""
        loop = self._turn_loop
        before = loop.ready_count
        cancelled = super().cancel(msg)
        loop.note_cancelled(self.number, before)
        return cancelled


class TurnLoop(asyncio.AbstractEventLoop):
    """The loop of one actor. `journal` hears of its timers."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._ready: deque[events.Handle] = deque()
        self._tasks: list[TurnTask] = []
        self._timers: list[tuple[float, int, events.TimerHandle]] = []
        self._woken: dict[int, tuple[int, events.Handle]] | None = None  # by the identity of the handle
        self._generators: weakref.WeakSet[AsyncGenerator[Any, Any]] | None = None
        self._number = 0
        self._runs = 0  # since it was looked which tasks are done
        self._now = 0.0
        self._host_loop: asyncio.AbstractEventLoop | None = None
        self._evicted = False
        self.has_made_futures = False  # since it was at rest: what waited for one, a lock say, belongs to this loop from then on
        self.unretrieved: list[BaseException] | None = None  # of tasks that nobody holds or awaits any more

    def __repr__(self) -> str:
        return f"<TurnLoop {len(self.tasks())} tasks, {len(self._timers)} timers>"

    # --- a turn ---

    def at(self, time: float) -> Self:
        """The loop at a time in seconds since the epoch: `with loop.at(time):` makes it the running loop of the thread.

        Not even plain functions may find the host's loop. (A class of its own, or a generator, would cost a microsecond each turn.)
        """
        self._now = time
        return self

    def __enter__(self) -> None:
        self._host_loop = events._get_running_loop()
        events._set_running_loop(self)

    def __exit__(self, *error: object) -> None:
        events._set_running_loop(self._host_loop)
        self._host_loop = None

    def begin_at(self, seed: int) -> None:
        """Forget whatever was before, and number what is created from here on by a seed: for a loop at rest.

        Different seeds spread the hashes of different actors' tasks, which the process keeps in one set.
        """
        number = seed << NUMBER_BITS
        self._number = number
        self._runs = 0
        self._woken = None
        self._ready.clear()
        self.unretrieved = None
        self.has_made_futures = False
        self._tasks.clear()
        self._timers.clear()

    def fire(self, due: float) -> None:
        """Make ready what is due by then, in the order of the due times."""
        timers = self._timers
        while timers and timers[0][0] <= due:
            self._ready.append(heapq.heappop(timers)[2])

    def run(self) -> None:
        """Run what is ready until everybody waits. Raises TurnDidNotEnd if that does not come, and what a plain callback raises."""
        if not self._ready:
            return
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generator_begins, self._generator_is_lost)
        try:
            self._run_ready()
            self._let_go()
        finally:
            sys.set_asyncgen_hooks(*hooks)

    def _let_go(self) -> None:
        """Forget the tasks that are done: one that failed, and that nobody else holds, tells `unretrieved` so as it goes.

        Frames hold tasks (by anyio's cancel scopes, say), and would keep such a one until the garbage collector comes, at any time.
        """
        self._runs += 1
        if self._runs * FEW_TASKS < len(self._tasks):  # many tasks are not walked through in every turn
            return
        self._runs = 0
        failed: list[Any] = [task._exception for task in self._tasks if task._log_traceback]
        for error in failed:
            traceback.clear_frames(error.__traceback__)
        self.tasks()

    def _run_ready(self) -> None:
        ready = self._ready
        redelivered: list[events.Handle] = []
        redeliveries = 0
        if self._woken is not None:  # a plain handler has cancelled tasks
            self._order_woken()
        for _ in range(MAX_CALLBACKS):
            if not ready:
                handle = None  # since 3.12 the frame of a task that failed leads to this one
                redeliveries += 1
                if not redelivered or not self._redeliver(redelivered, redeliveries):
                    return
                continue
            handle = ready.popleft()
            if handle._cancelled:
                continue
            if type(handle._callback) is MethodType and _is_redelivery(handle):  # type: ignore[attr-defined]
                redelivered.append(handle)
                continue
            handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
            if self._woken is not None:
                self._order_woken()
        raise TurnDidNotEnd(f"{MAX_CALLBACKS} callbacks", _place(asyncio.current_task(self) or self.tasks()[0]))

    def _redeliver(self, redelivered: list[events.Handle], nth: int) -> bool:
        """Let anyio cancel once more those who shield themselves; False if nothing comes of it but the next attempt, or it is of no use.

        That one waits, in the ready queue, for the next turn.
        """
        ready = self._ready
        if nth > MAX_REDELIVERIES:
            ready.extend(redelivered)
            return False
        handles, redelivered[:] = list(redelivered), []
        for handle in handles:
            if not handle._cancelled:
                handle._context.run(handle._callback, *handle._args)  # type: ignore[attr-defined]
        if self._woken is not None:
            self._order_woken()
        return not all(type(handle._callback) is MethodType and _is_redelivery(handle) for handle in ready)  # type: ignore[attr-defined]

    @property
    def ready_count(self) -> int:
        """Callbacks that are ready."""
        return len(self._ready)

    def note_cancelled(self, number: int, before: int) -> None:
        """The cancelling of a task of that number has made ready what stands behind the first `before` callbacks."""
        ready = self._ready
        for place in range(before, len(ready)):
            self._woken = self._woken or {}
            self._woken.setdefault(id(ready[place]), (number, ready[place]))

    def _order_woken(self) -> None:
        """Anyio walks sets of cancel scopes, which are ordered by address."""
        woken, self._woken = self._woken or {}, None
        if len(woken) < 2:
            return
        in_order = iter([handle for _, handle in sorted(woken.values(), key=lambda each: each[0])])
        ready = [next(in_order) if id(handle) in woken else handle for handle in self._ready]
        self._ready.clear()
        self._ready.extend(ready)

    # --- what waits ---

    def tasks(self) -> list[TurnTask]:
        """The tasks that are not done, in the order of their creation."""
        self._tasks = [task for task in self._tasks if not task.done()]
        return self._tasks

    @property
    def at_rest(self) -> bool:
        """Whether nothing waits: no task, no timer."""
        return (not self._tasks or all(task.done() for task in self._tasks)) and (not self._timers or self.next_due() is None)

    def next_due(self) -> float | None:
        """When the earliest timer is due."""
        timers = self._timers
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
        return timers[0][0] if timers else None

    def cancel_all(self, reason: str) -> None:
        """Cancel every task."""
        # Here, and not where the loop is run: since 3.12 a failed task leads to the frames below it, and they must not hold it.
        for task in list(self.tasks()):
            task.cancel(reason)

    def evict(self) -> None:
        """End every task where it waits, the latest first, as Python ends a coroutine: `finally` blocks run, and may wait for nothing."""
        self._evicted = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._generator_begins, self._generator_is_lost)
        try:
            with self:
                self._close_all()
        finally:
            sys.set_asyncgen_hooks(*hooks)
        self._ready.clear()
        self._timers.clear()
        self.unretrieved = None

    def _close_all(self) -> None:
        while self._tasks:  # clean-up may make new ones
            _close(self, self._tasks.pop())
        for generator in list(self._generators or ()):
            _close_generator(generator)

    def _generator_begins(self, generator: AsyncGenerator[Any, Any]) -> None:
        if self._generators is None:
            self._generators = weakref.WeakSet()
        self._generators.add(generator)

    def _generator_is_lost(self, generator: AsyncGenerator[Any, Any]) -> None:
        if events._get_running_loop() is not self:
            return
        if self._evicted:
            _close_generator(generator)
        else:
            self.create_task(generator.aclose())

    # --- what asyncio asks of a loop ---

    def next_number(self) -> int:
        """A number for a task or future: they count up from the beginning of what waits."""
        self._number += 1
        return self._number

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None) -> events.Handle:
        """Run a callback in this turn, after those that are ready already."""
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        """Run a callback so many seconds later: a durable timer; after infinity, none. Raises ValueError after the year 9999."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None
    ) -> events.TimerHandle:
        """Run a callback at a time in seconds since the epoch: a durable timer; at infinity none. Raises ValueError after the year 9999."""
        if not when <= LATEST:  # NaN too
            if when == math.inf:  # anyio's sleep_forever: nothing to be woken for
                return events.TimerHandle(when, callback, args, self, context)
            raise ValueError(f"a timer is due by the end of the year 9999, and not at {when!r}; to wait for ever, sleep(math.inf)")
        if when <= self._now:
            handle = events.TimerHandle(when, callback, args, self, context)
            self._ready.append(handle)
            return handle
        when = self._journal.timer(when)
        handle = events.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self.next_number(), handle))
        return handle

    def _timer_handle_cancelled(self, handle: events.TimerHandle) -> None:
        """As asyncio's own loop: cancelled timers are dropped when they are met; many of them at once."""
        timers = self._timers
        if len(timers) > 64 and sum(timer[2]._cancelled for timer in timers[:64]) > 32:
            self._timers = [timer for timer in timers if not timer[2]._cancelled]
            heapq.heapify(self._timers)

    def time(self) -> float:
        """The time of the turn: seconds since the epoch, the same during the whole turn."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        self.has_made_futures = True
        return TurnFuture(self)

    def create_task(self, coro: Any, *, name: str | None = None, context: contextvars.Context | None = None, **options: Any) -> TurnTask:
        """A task of this actor; the loop holds on to it until it is done. It never starts before the callback that made it has ended."""
        if self._evicted and coro.cr_code.co_filename.startswith(ANYIO):
            raise ActorEvicted("a task of anyio's")  # which closes what it has wrapped, or Python would say that it was never awaited
        task = TurnTask(coro, self, name=name, context=context)
        tasks = self._tasks
        if len(tasks) & 63 == 63:
            tasks = self.tasks()
        tasks.append(task)
        return task

    async def shutdown_asyncgens(self) -> None:
        """Nothing: generators end with the actor's coroutines."""

    def get_debug(self) -> bool:
        """Never: debug mode measures wall time."""
        return False

    def is_running(self) -> bool:
        """Whether a turn is being taken."""
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        """Never: it holds nothing that could be closed."""
        return False

    def get_task_factory(self) -> None:
        """None: tasks are always the loop's own."""

    def get_exception_handler(self) -> None:
        """None: what a task raises reaches whoever awaits it, or whoever looks after the actor."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """A task failed, and nobody is left to be told: keep the error for whoever looks after the actor."""
        error = context.get("exception")
        if isinstance(error, BaseException) and events._get_running_loop() is self:
            self.unretrieved = self.unretrieved or []
            self.unretrieved.append(error)


REFUSED: Final = {
    "a thread": "call_soon_threadsafe run_in_executor set_default_executor shutdown_default_executor",
    "a subprocess": "subprocess_exec subprocess_shell connect_read_pipe connect_write_pipe",
    "a socket": "add_reader remove_reader add_writer remove_writer create_connection create_server create_datagram_endpoint"
    " create_unix_connection create_unix_server connect_accepted_socket getaddrinfo getnameinfo sendfile start_tls sock_accept"
    " sock_connect sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto",
    "a change of the loop": "set_task_factory set_exception_handler set_debug add_signal_handler remove_signal_handler run_forever"
    " run_until_complete stop close",
}
CURE: Final = (
    "do it in a step\n"
    "    @step\n"
    "    async def fetch(url: str) -> str: …   # real I/O, on the host's loop; a `def` step runs in a thread\n"
    "    text = await fetch(url)               # recorded: a replay does not do it again"
)


def _refusal(what: str, name: str) -> Callable[..., NoReturn]:
    def refused(self: TurnLoop, *args: object, **options: object) -> NoReturn:
        raise NotDurable(f"{what} (loop.{name})", CURE)

    refused.__doc__ = f"Refused: {what} is not durable."
    return refused


for _what, _names in REFUSED.items():
    for _name in _names.split():
        setattr(TurnLoop, _name, _refusal(_what, _name))


def new_turn_loop(journal: Journal) -> TurnLoop:
    """A loop for the code of one actor."""
    return TurnLoop(journal)  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]  # what it lacks by its text is set above


def _innermost(coroutine: Any) -> CodeType:
    """The code of the coroutine at the end of a chain of awaits."""
    while isinstance(awaited := coroutine.cr_await, CoroutineType):
        coroutine = awaited
    code: CodeType = coroutine.cr_code
    return code


def _is_redelivery(handle: events.Handle) -> bool:
    """Whether it is anyio asking a task again to end that shields itself: it does so in every round, and is no progress."""
    return handle._callback.__func__.__name__ == "_deliver_cancellation"  # type: ignore[attr-defined, no-any-return]


def _close(loop: TurnLoop, task: TurnTask) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine: Any = task.get_coro()
    asyncio._enter_task(loop, task)
    try:
        task.context.run(_end, coroutine, coroutine.close)
    finally:
        asyncio._leave_task(loop, task)


def _close_generator(generator: AsyncGenerator[Any, Any]) -> None:
    closing = generator.aclose()
    _end(closing, lambda: closing.send(None))


def _end(closed: Any, close: Callable[[], object]) -> None:
    """Close it until it has ended: clean-up that waits is closed where it does so, or the garbage collector would, at its own time."""
    for _ in range(MAX_CLOSINGS):
        with suppress(BaseException):  # nobody is left to be told, and nothing of it is kept
            close()
        if getattr(closed, "cr_frame", None) is None:
            return


def _place(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    if not frames:
        return task.get_name()
    frame = frames[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name},"
