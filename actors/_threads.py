"""Worker threads for calls that block, a pool of our own: it goes on when a call hangs.

A thread whose call is no longer waited for is abandoned: it no longer counts, its outcome is dropped, and another takes its place, so that
calls that never return use up no more than a thread each. All methods belong to one event loop. The threads are daemons: none keeps the
process alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar, final

from ._errors import RuntimeNotRunning
from ._failure import Failure

T = TypeVar("T")

CLOSES_WITHIN: Final = 1.0  # seconds that closing waits for calls that still run
_ENDS_WITHIN: Final = 1.0  # seconds; a thread without a call ends in microseconds, unless what a call left behind blocks in its __del__

logger = logging.getLogger("perdure.threads")


class Outcome(NamedTuple, Generic[T]):
    """What a call returned, or what it raised: one of the two."""

    values: tuple[T, ...]
    error: Exception | None = None

    @classmethod
    def of(cls, call: Callable[[], T]) -> Outcome[T]:
        """Make the call. What is no Exception becomes a RemoteError: SystemExit is meant for the thread, not for the host."""
        try:
            return cls((call(),))
        except Exception as error:  # noqa: BLE001  the call may raise anything
            return cls((), error)
        except BaseException as error:  # noqa: BLE001  as above
            return cls((), Failure.of(error).revive())

    def result(self) -> T:
        """What the call returned. Raises what it raised."""
        if self.error is not None:
            raise self.error
        return self.values[0]


class _Job(NamedTuple):
    """A call, the context to make it in, and who waits for its outcome."""

    call: Callable[[], Any]
    context: Context
    outcome: asyncio.Future[Outcome[Any]]

    def make(self) -> None:
        """Make the call, and tell the loop. Raises RuntimeError if that is closed."""
        outcome = self.context.run(Outcome.of, self.call)
        self.outcome.get_loop().call_soon_threadsafe(self._tell, outcome)

    def _tell(self, outcome: Outcome[Any]) -> None:
        self.outcome.set_result(outcome)


@final
class WorkerThread:
    """A daemon thread that makes calls for the running event loop, one at a time."""

    __slots__ = ("_jobs", "_thread")

    def __init__(self, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=_work, args=(self._jobs,), name=name, daemon=True)
        self._thread.start()

    def make(self, call: Callable[[], T]) -> asyncio.Future[Outcome[T]]:
        """Begin a call, in a copy of the caller's context. The future is done when the thread is free again; it must not be cancelled."""
        outcome: asyncio.Future[Outcome[T]] = asyncio.get_running_loop().create_future()
        self._jobs.put(_Job(call, copy_context(), outcome))
        return outcome

    def end(self) -> None:
        """End the thread, which makes no call now."""
        self._jobs.put(None)
        self._thread.join(_ENDS_WITHIN)


class ThreadStatistics(NamedTuple):
    """How busy a pool is: threads that run a call that is waited for, that have none, that are abandoned; calls that wait for a thread."""

    running: int
    idle: int
    abandoned: int
    waiting: int


@final
class Threads:
    """Makes calls in at most `limit` threads at once, abandoned ones apart. They are started when needed and kept until `close`."""

    def __init__(self, limit: int = 32) -> None:
        self._limit = limit
        self._free = asyncio.Semaphore(limit)
        self._idle: list[WorkerThread] = []
        self._running: set[asyncio.Future[Any]] = set()
        self._abandoned: set[asyncio.Future[Any]] = set()
        self._waiting = 0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Threads limit {self._limit}, {self.statistics()}>"

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises, made in a thread, in a copy of the caller's context; calls begin in the order of asking.

        Where the waiting task is cancelled the call runs on, its thread is abandoned, and a warning names it. Raises RuntimeNotRunning
        after `close`.
        """
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            outcome = await self._make(call)
        finally:
            self._free.release()
        return outcome.result()

    def statistics(self) -> ThreadStatistics:
        """How busy the pool is."""
        return ThreadStatistics(len(self._running), len(self._idle), len(self._abandoned), self._waiting)

    async def close(self) -> None:
        """Take no more calls, and end the threads. Those that run a call, abandoned or not, end with it, which is awaited briefly."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().end()
        if self._running or self._abandoned:
            await asyncio.wait(self._running | self._abandoned, timeout=CLOSES_WITHIN)
            await asyncio.sleep(0)  # whoever awaits a call takes its outcome and ends its thread

    async def _make(self, call: Callable[[], T]) -> Outcome[T]:
        if self._is_closed:
            raise RuntimeNotRunning(call_name(call), "the host has ended its threads")
        thread = self._idle.pop() if self._idle else WorkerThread("perdure-thread")
        made = thread.make(call)
        self._running.add(made)
        try:
            return await asyncio.shield(made)
        finally:
            self._running.remove(made)
            if made.done():
                self._take_back(thread)
            else:
                self._abandon(thread, made, call)

    def _take_back(self, thread: WorkerThread) -> None:
        if self._is_closed:
            thread.end()
        else:
            self._idle.append(thread)

    def _abandon(self, thread: WorkerThread, made: asyncio.Future[Any], call: Callable[[], object]) -> None:
        self._abandoned.add(made)
        made.add_done_callback(partial(self._bury, thread))
        logger.warning(
            "%s is not waited for any longer, but runs on: its thread is abandoned, as %d now are", call_name(call), len(self._abandoned)
        )

    def _bury(self, thread: WorkerThread, made: asyncio.Future[Any]) -> None:
        self._abandoned.discard(made)
        thread.end()


def call_name(call: Callable[[], object]) -> str:
    """The call as messages name it: where its function is defined."""
    function = getattr(call, "__wrapped__", None) or getattr(call, "func", call)  # of a partial
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    return f"{getattr(function, '__module__', None) or type(function).__module__}.{name}"


def _work(jobs: SimpleQueue[_Job | None]) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any longer
        while (job := jobs.get()) is not None:
            job.make()
            del job  # while the thread is idle nothing of the call is kept
