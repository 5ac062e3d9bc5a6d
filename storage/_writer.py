"""The one thread that writes to an environment.

A write transaction begun on one thread and committed on another hangs every later write of the process, so each begins and ends here,
in the order of the posts. Work that was posted is done, whether or not anybody still waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast, final

T = TypeVar("T")
Staged = Callable[[], None]

# py-lmdb retakes the GIL around every call: beside a busy loop each retake costs a switch interval (5 ms), and 2,000 commits/s fall to
# 110. So the loop stands still while the puts are made, and runs on during the commit itself, which is one call without the GIL.
STAGING: Final = 0.05  # seconds that the loop stands still at most

# A commit that has returned needs the GIL back, and asks for it after the interpreter's switch interval. While one is under way that is
# shortened: where no thread waits it costs nothing, while a loop that sleeps now and then pays 75 µs each time (benchmarks/commit.py).
SWITCH: Final = 0.0002  # seconds

# Waking a loop from its selector costs a fifth of a commit on a fast disk. So for a commit of a single turn, when the one before was quick,
# the loop stands still until it is done: most likely there is nothing else to do.
QUICK: Final = 0.0005  # seconds
CHORE_INTERVAL: Final = 60.0  # seconds


@final
class _Pace:
    """The interpreter's switch interval. The writers of a process share it: where two are at work, the first to end sets it back."""

    def __init__(self) -> None:
        self._usual = sys.getswitchinterval()

    def hurry(self) -> None:
        """A commit begins."""
        interval = sys.getswitchinterval()
        if interval > SWITCH:
            self._usual = interval
            sys.setswitchinterval(SWITCH)

    def relax(self) -> None:
        """A commit has ended."""
        if sys.getswitchinterval() <= SWITCH:
            sys.setswitchinterval(self._usual)


_PACE: Final = _Pace()


@final
class _Job:
    """Work for the writer, and how its loop stands still meanwhile: until all is staged, or until the `whole` work is done."""

    __slots__ = ("_error", "_go_on", "_loop", "_result", "_told", "_whole", "_work", "outcome")

    def __init__(self, work: Callable[[Staged], Any], loop: asyncio.AbstractEventLoop, *, whole: bool) -> None:
        self._work = work
        self._loop = loop
        self._whole = whole
        self._go_on = threading.Lock()
        self._go_on.acquire()
        self._told = threading.Lock()  # taken by whoever tells the outcome of a whole work: the loop that still stands, or the writer
        self._result: Any = None
        self._error: BaseException | None = None
        self.outcome: asyncio.Future[Any] = loop.create_future()

    def stand(self, patience: float) -> None:
        """Keep the calling loop until it may go on, `patience` seconds at most."""
        in_time = self._go_on.acquire(timeout=patience)
        if self._whole and (in_time or not self._told.acquire(blocking=False)):
            self._tell()

    def run(self) -> None:
        """Do the work, on the writer's thread."""
        try:
            self._result = self._work(_stay if self._whole else self._let_loop_go)
        except BaseException as raised:  # noqa: BLE001  (it is raised again in whoever waits)
            self._error = raised
        _PACE.relax()
        if self._whole and self._told.acquire(blocking=False):
            self._go_on.release()
            return
        self._let_loop_go()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._tell)

    def _let_loop_go(self) -> None:
        if self._go_on.locked():
            self._go_on.release()

    def _tell(self) -> None:
        finish(self.outcome, self._result, self._error)


@final
class Writer:
    """A thread that does one piece of work after the other, and a chore each minute between them."""

    def __init__(self, name: str, chore: Callable[[], object]) -> None:
        self._name = name
        self._chore = chore
        self._chore_due = time.monotonic() + CHORE_INTERVAL
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._quick = False  # whether the last piece of work was
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Writer {self._name}: {'running' if self._thread else 'at rest'}, {self._jobs.qsize()} posted>"

    def post(self, work: Callable[[Staged], T], *, patience: float = STAGING, alone: bool = False) -> asyncio.Future[T]:
        """Have `work(staged)` done after all that was posted before; it calls `staged` once nothing but the commit is left.

        The calling loop stands still until then, `patience` seconds at most. `alone`: it has most likely nothing to do before the work
        is done, and may stand still until that, if it comes quickly.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        whole = alone and self._quick and patience > 0
        job = _Job(work, asyncio.get_running_loop(), whole=whole)
        if patience:  # else nobody hurries, and it may wait for a stopped process
            _PACE.hurry()
        self._jobs.put(job)
        if patience:
            job.stand(QUICK if whole else patience)
        return job.outcome

    async def rest(self, timeout: float | None = None) -> bool:
        """Wait until all that was posted is done, and end the thread; False if that takes longer than `timeout` seconds."""
        thread = self._thread
        if thread is None:
            return True
        done = self.post(_nothing, patience=0)
        self._jobs.put(None)
        self._thread = None
        try:
            await asyncio.wait({done}, timeout=timeout)
        finally:
            if done.done() or timeout is None:
                thread.join()
        return done.done()

    def _run(self) -> None:
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, self._chore_due - time.monotonic()))
            except queue.Empty:
                self._chore_due = time.monotonic() + CHORE_INTERVAL
                self._chore()
                continue
            if job is None:
                return
            begin = time.perf_counter()
            job.run()
            self._quick = time.perf_counter() - begin < QUICK


def _nothing(staged: Staged) -> None:
    staged()


def _stay() -> None:
    """All is staged, but the loop waits for more."""


def finish(outcome: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    """Give a future its result or error, unless its waiter has gone."""
    if outcome.done():
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(cast("T", result))
