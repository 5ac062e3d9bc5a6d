"""The one thread that writes to an environment.

A write transaction begun on one thread and committed on another hangs every later write of the process, so each begins and ends here,
in the order of the posts. Work that was posted is done, whether or not anybody still waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast, final

T = TypeVar("T")
Staged = Callable[[], None]

# py-lmdb retakes the GIL around every call: beside a busy loop each retake costs a switch interval (5 ms), and 2,000 commits/s fall to
# 110. So the loop stands still while the puts are made, and runs on during the commit itself, which is one call without the GIL.
STAGING: Final = 0.05  # seconds that the loop stands still at most
CHORE_INTERVAL: Final = 60.0  # seconds


class _Job(NamedTuple):
    work: Callable[[Staged], Any]
    staged: threading.Lock
    loop: asyncio.AbstractEventLoop
    outcome: asyncio.Future[Any]

    def run(self) -> None:
        result, error = None, None
        try:
            result = self.work(self._let_loop_run)
        except BaseException as raised:  # noqa: BLE001  (it is raised again in whoever waits)
            error = raised
        self._let_loop_run()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(finish, self.outcome, result, error)

    def _let_loop_run(self) -> None:
        if self.staged.locked():
            self.staged.release()


@final
class Writer:
    """A thread that does one piece of work after the other, and a chore each minute between them."""

    def __init__(self, name: str, chore: Callable[[], object]) -> None:
        self._name = name
        self._chore = chore
        self._chore_due = time.monotonic() + CHORE_INTERVAL
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"<Writer {self._name}: {'running' if self._thread else 'at rest'}, {self._jobs.qsize()} posted>"

    def post(self, work: Callable[[Staged], T], *, patience: float = STAGING) -> asyncio.Future[T]:
        """Have `work(staged)` done after all that was posted before; it calls `staged` once nothing but the commit is left.

        The calling loop stands still until then, `patience` seconds at most.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        job = _Job(work, threading.Lock(), loop, loop.create_future())
        if patience:
            job.staged.acquire()
            self._jobs.put(job)
            job.staged.acquire(timeout=patience)
        else:
            self._jobs.put(job)
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
            job.run()


def _nothing(staged: Staged) -> None:
    staged()


def finish(outcome: asyncio.Future[T], result: T | None, error: BaseException | None) -> None:
    """Give a future its result or error, unless its waiter has gone."""
    if outcome.done():
        return
    if error is not None:
        outcome.set_exception(error)
    else:
        outcome.set_result(cast("T", result))
