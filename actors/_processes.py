"""Worker processes for calls that need a process of their own: because of the GIL, of memory, or of C code that may crash.

A worker makes one call at a time, so one that dies or is killed costs its own call only. It is spawned, never forked, when first needed,
is kept between calls, and does not outlive its host.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, cast, final

import msgspec

from ._codec import PICKLE, PROTOCOL
from ._errors import NotSerializable, RuntimeNotRunning, WorkerDied
from ._failure import Failure
from ._process_worker import Kind, receive, send
from ._threads import Outcome, WorkerThread, call_name

T = TypeVar("T")

CLOSES_WITHIN: Final = 5.0  # seconds that closing waits for the workers to be gone
_STOPS_WITHIN: Final = 1.0  # seconds for a worker without a call to end in its own way, before it is killed

# Whatever else it imports, it finds where its host does. The path comes as arguments, so nothing has to be imported to read it.
_PROGRAM: Final = """
import sys
channel, lifeline, *sys.path = sys.argv[1:]
del sys.argv[1:]
from perdure.actors._process_worker import serve
serve(int(channel), int(lifeline))
"""

_LIFELINES: Final[set[int]] = set()


def _drop_lifelines() -> None:
    """A fork of the host must not keep the workers alive when the host is gone."""
    while _LIFELINES:
        os.close(_LIFELINES.pop())


os.register_at_fork(after_in_child=_drop_lifelines)


@final
class _Worker:
    """One worker process and the thread that speaks with it. `ask` and `stop` block, in that thread; `kill` may come from any."""

    __slots__ = ("_channel", "_is_killed", "_lifeline", "_lock", "_process", "_reader", "thread")

    def __init__(self) -> None:
        self.thread = WorkerThread("perdure-process")
        self._lock = threading.Lock()  # holds while it is killed: a process id that was reaped may be another's
        self._is_killed = False
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_usable(self) -> bool:
        """Whether it, which makes no call now, can make another."""
        return not self._is_killed and (self._process is None or not self._has_gone())

    def ask(self, call: Callable[[], T]) -> T:
        """Have the process make the call. Raises what the call raises, and WorkerDied."""
        request = _pickled(call)
        if self._process is None:
            self._spawn()
        try:
            send(self._channel, Kind.CALL, request)
            del request
            kind, reply = receive(self._reader)
        except (EOFError, OSError):
            raise WorkerDied(call_name(call), _ending(self._reap())) from None
        if kind is Kind.RAISED:
            raise msgspec.msgpack.decode(reply, type=Failure).revive()
        return cast("T", PICKLE.decode(reply))

    def kill(self) -> None:
        """End the process and all that it has started, whatever it does; whoever asks it then hears that it died."""
        with self._lock:
            if not self._is_killed and self._process is not None:
                _kill_group(self._process.pid)
            self._is_killed = True

    def stop(self) -> None:
        """End the process in its own way if it will, else as `kill` does, and let go of everything."""
        if self._process is None:
            return
        if not self._is_killed:
            with contextlib.suppress(OSError):
                self._channel.shutdown(socket.SHUT_WR)
                self._channel.settimeout(_STOPS_WITHIN)
                self._reader.read(1)
        self._reap()

    def _has_gone(self) -> bool:
        try:
            self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True  # it ended: a worker that makes no call has nothing to say

    def _spawn(self) -> None:
        self._channel, theirs = socket.socketpair()
        end, self._lifeline = os.pipe()
        _LIFELINES.add(self._lifeline)
        self._reader = self._channel.makefile("rb")
        try:
            process = _spawned(theirs.fileno(), end)
        except BaseException:
            self._let_go()
            raise
        finally:
            theirs.close()
            os.close(end)
        with self._lock:
            self._process = process
            if self._is_killed:
                _kill_group(process.pid)

    def _reap(self) -> int:
        assert self._process is not None
        self.kill()
        if self._process.returncode is None:
            self._process.wait()
            self._let_go()
        return self._process.wait()

    def _let_go(self) -> None:
        _LIFELINES.discard(self._lifeline)
        os.close(self._lifeline)
        self._reader.close()
        self._channel.close()


class ProcessStatistics(NamedTuple):
    """How busy a pool is: workers that make a call or are just ending, workers that have none, and calls that wait for one."""

    running: int
    idle: int
    waiting: int


@final
class Processes:
    """Makes calls in at most `limit` processes at once, by default one for each CPU. All methods belong to one event loop."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit or os.cpu_count() or 1
        self._free = asyncio.Semaphore(self._limit)
        self._idle: list[_Worker] = []
        self._running: set[_Worker] = set()
        self._waiting = 0
        self._is_closed = False
        self._gone = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Processes limit {self._limit}, {self.statistics()}>"

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises, made in a worker process; calls begin in the order of asking.

        The call goes there by cloudpickle: what the main program defines goes by value. An exception that cannot travel arrives as a
        RemoteError. Where the waiting task is cancelled the process is killed. Raises WorkerDied where it died by itself, NotSerializable
        for a call or an outcome that cannot be pickled, and RuntimeNotRunning after `close`.
        """
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        worker, asked = self._ask(call)
        try:
            outcome = await asyncio.shield(asked)
        except asyncio.CancelledError:
            if not asked.done():
                worker.kill()
            raise
        return outcome.result()

    def statistics(self) -> ProcessStatistics:
        """How busy the pool is."""
        return ProcessStatistics(len(self._running), len(self._idle), self._waiting)

    async def close(self) -> None:
        """Take no more calls, kill the workers that make one, and wait until all are gone, briefly."""
        self._is_closed = True
        for worker in self._running:
            worker.kill()
        while self._idle:
            self._stop(self._idle.pop())
        if self._running:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._gone.wait(), CLOSES_WITHIN)

    def _ask(self, call: Callable[[], T]) -> tuple[_Worker, asyncio.Future[Outcome[T]]]:
        """Begin the call. The slot is free again when the worker is, or when it is gone."""
        try:
            if self._is_closed:
                raise RuntimeNotRunning(call_name(call), "the host has ended its worker processes")
            worker = self._usable()
        except BaseException:
            self._free.release()
            raise
        self._running.add(worker)
        asked = worker.thread.make(partial(worker.ask, call))
        asked.add_done_callback(partial(self._take_back, worker))
        return worker, asked

    def _usable(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.is_usable:
                return worker
            self._stop(worker)
        return _Worker()

    def _take_back(self, worker: _Worker, _: asyncio.Future[Any]) -> None:
        if worker.is_usable and not self._is_closed:
            self._running.discard(worker)
            self._idle.append(worker)
            self._free.release()
        else:
            self._stop(worker).add_done_callback(lambda _: self._free.release())

    def _stop(self, worker: _Worker) -> asyncio.Future[Any]:
        self._running.add(worker)
        stopped = worker.thread.make(worker.stop)
        stopped.add_done_callback(partial(self._bury, worker))
        return stopped

    def _bury(self, worker: _Worker, _: asyncio.Future[Any]) -> None:
        worker.thread.end()
        self._running.discard(worker)
        if self._is_closed and not self._running:
            self._gone.set()


def _pickled(call: Callable[[], object]) -> bytes:
    import cloudpickle  # here, since it costs 15 ms, in the worker's thread

    try:
        return cast("bytes", cloudpickle.dumps(call, PROTOCOL))
    except Exception as error:  # pickling runs the values' own methods, which may raise anything
        raise NotSerializable(f"the call {call_name(call)}", type(call).__qualname__, str(error) or type(error).__name__) from error


def _spawned(channel: int, lifeline: int) -> subprocess.Popen[bytes]:
    """A new worker, leader of a process group: it can be killed with all that it starts, and the terminal's Ctrl-C passes it by."""
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # as multiprocessing does
    return subprocess.Popen(  # noqa: S603  nothing of it comes from outside
        [sys.executable, *flags, "-P", "-c", _PROGRAM, str(channel), str(lifeline), *map(str, sys.path)],
        stdin=subprocess.DEVNULL,  # to read from the terminal would stop a process that is not of its foreground group
        pass_fds=(channel, lifeline),
        process_group=0,
    )


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission to kill what has ended and is not reaped
        os.killpg(leader, signal.SIGKILL)


def _ending(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    name = signal.Signals(-status).name if -status in set(signal.Signals) else f"signal {-status}"
    return f"was killed by {name}"
