"""A thread that watches how long a turn takes: a handler that blocks holds up every actor of the host.

After 100 ms it warns, with the line that is running. After `limit` it raises `TurnInterrupted` in that turn, again each second. What does
not even react to that is blocked in C: after twice the limit it ends the process, so that the breadcrumb charges the message and the next
host goes on.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar, final

from ._errors import TurnDidNotEnd

T = TypeVar("T")

WARN_AFTER: Final = 0.1  # seconds
AGAIN_AFTER: Final = 1.0  # seconds between attempts to interrupt
EXIT_STATUS: Final = 70  # EX_SOFTWARE of sysexits.h
POLL_BUSY, POLL_IDLE = 0.05, 0.25  # seconds between looks, while turns are taken and while there are none

logger = logging.getLogger("perdure.watchdog")


class TurnInterrupted(BaseException):
    """Raised in a turn that does not end. Not an error of the code it is raised in, so `except Exception` does not stop it."""


@final
class Watchdog:
    """Watches the turns of the thread that made it. Times in seconds."""

    def __init__(self, limit: float = 10.0) -> None:
        self.limit = limit
        self._watched = threading.get_ident()
        self._lock = threading.Lock()  # holds between looking whether a turn still runs and raising in it
        self._turn: tuple[tuple[object, str], float] | None = None
        self._raised = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="perdure-watchdog", daemon=True)

    def __repr__(self) -> str:
        return f"<Watchdog limit {self.limit} s, watching {self._turn}>"

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, and wait for the thread to end."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def guard(self, what: tuple[object, str], work: Callable[[], T]) -> T:
        """Do what runs a user's code; `what` is the actor and its handler, for messages.

        Raises TurnDidNotEnd where it had to be interrupted.
        """
        interrupted = False
        self.enter(what)
        try:
            try:
                result = work()
            finally:
                interrupted = self.leave()
            if not interrupted:
                return result
        except BaseException as error:
            self.leave()  # the interruption may have come while the first call was at it
            if not interrupted and not _is_interruption(error):
                raise
        # Also where a task has caught it, or ended with it: whatever it was in the middle of is not to be trusted.
        raise TurnDidNotEnd(f"{self.limit:g} s", f"{what[1]} of {what[0]}")

    def enter(self, what: tuple[object, str]) -> None:
        """A turn begins."""
        self._turn = (what, time.perf_counter())

    def leave(self) -> bool:
        """The turn has ended; returns whether it was interrupted. After this returned, nothing is raised in the watched thread any more."""
        with self._lock:
            self._turn = None
            raised, self._raised = self._raised, False
            if raised:
                _withdraw(self._watched)
            return raised

    def _watch(self) -> None:
        warned: tuple[tuple[object, str], float] | None = None
        again = 0.0
        while not self._stop.wait(POLL_BUSY if self._turn else POLL_IDLE):
            turn = self._turn
            if turn is None:
                continue
            age = time.perf_counter() - turn[1]
            if age > WARN_AFTER and warned is not turn:
                warned, again = turn, self.limit
                logger.warning("%s: %s blocks the event loop for %.0f ms now%s", *turn[0], age * 1e3, self._where())
            if age > again and age > self.limit:
                again = age + AGAIN_AFTER
                self._interrupt(turn, age)

    def _interrupt(self, turn: tuple[tuple[object, str], float], age: float) -> None:
        with self._lock:
            if self._turn is not turn:
                return
            if age > 2 * self.limit:
                logger.critical("%s: %s cannot be interrupted after %.0f s; this process ends%s", *turn[0], age, self._where())
                os._exit(EXIT_STATUS)
            self._raised = True
            _set_async_exception(self._watched, TurnInterrupted)
            logger.error("%s: %s has not ended after %.0f s and is interrupted%s", *turn[0], age, self._where())

    def _where(self) -> str:
        frame = sys._current_frames().get(self._watched)
        if frame is None:
            return ""
        return f": {frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name}"


def _is_interruption(error: BaseException) -> bool:
    """Whether it is one, or a task group's that one of its tasks had."""
    return isinstance(error, TurnInterrupted) or (isinstance(error, BaseExceptionGroup) and error.subgroup(TurnInterrupted) is not None)


def _set_async_exception(thread: int, exception: type[BaseException]) -> None:
    import ctypes  # two milliseconds, for what hardly ever happens

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(exception))


def _withdraw(thread: int) -> None:
    """Have what may still be to come in this thread come now, and forget it.

    Were it unset, CPython 3.11 would go on looking for it: at the next call under a profiler, a debugger or coverage for ever.
    """
    try:
        _set_async_exception(thread, TurnInterrupted)
        while True:
            pass
    except TurnInterrupted:
        pass
