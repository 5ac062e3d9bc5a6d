"""The loop that actor code runs on: deterministic, without I/O, entered and left within one plain callback of the host's loop.

Nothing here waits: a turn runs callbacks until none is left, and what needs a socket, a thread or a subprocess is refused where it is
asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, Self, TypeVar, TypeVarTuple, Unpack

from ._errors import NotDurable, TurnDidNotEnd

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

MAX_CALLBACKS: Final = 100_000  # of one turn, about a tenth of a second of `sleep(0)`: more is taken for a loop without an end


class TurnLoop(asyncio.AbstractEventLoop):
    """Runs one turn at a time."""

    def __init__(self) -> None:
        self._ready: deque[events.Handle] = deque()
        self._tasks: list[asyncio.Task[Any]] = []
        self._now = 0.0
        self._host_loop: asyncio.AbstractEventLoop | None = None

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

    def run_turn(self, main: Coroutine[Any, Any, T], context: contextvars.Context) -> T:
        """Run a coroutine, in a task, until it is done; returns or raises as it does. Tasks that it leaves behind are cancelled.

        Raises NotDurable if it waits for something, TurnDidNotEnd if it goes on for ever.
        """
        task = self.create_task(main, context=context)
        try:
            self._run_ready(task)
            if not task.done():
                raise NotDurable(f"{_place(task)} waits", "let the handler end within its turn: await only what is ready")
            result: T = task.result()
            return result
        finally:
            self._cancel_the_rest()

    def _run_ready(self, main: asyncio.Task[Any]) -> None:
        ready = self._ready
        for _ in range(MAX_CALLBACKS):
            if not ready:
                return
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()
        raise TurnDidNotEnd(f"{MAX_CALLBACKS} callbacks", _place(main))

    def _cancel_the_rest(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            if not task.done():
                task.cancel()
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        try:
            self._run_ready(tasks[0])
        finally:
            self._ready.clear()
            self._tasks.clear()

    # --- what asyncio asks of a loop ---

    def call_soon(self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: contextvars.Context | None = None) -> events.Handle:
        """Run a callback in this turn, after those that are ready already."""
        handle = events.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def time(self) -> float:
        """The time of the turn: seconds since the epoch, the same during the whole turn."""
        return self._now

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        """A task of this turn."""
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        self._tasks.append(task)
        return task

    def get_debug(self) -> bool:
        """Never: debug mode measures wall time."""
        return False

    def is_running(self) -> bool:
        """Whether a turn is being taken."""
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        """Never: it holds nothing that could be closed."""
        return False

    def get_exception_handler(self) -> None:
        """None: what a task raises reaches whoever awaits it."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """The error of a callback ends the turn, since nobody awaits it; a task's waits for whoever retrieves it."""
        error = context.get("exception")
        if "handle" in context and isinstance(error, BaseException):
            raise error


REFUSED: Final = {
    "a timer": "call_later call_at",
    "a thread": "call_soon_threadsafe run_in_executor set_default_executor shutdown_default_executor",
    "a subprocess": "subprocess_exec subprocess_shell connect_read_pipe connect_write_pipe",
    "a socket": "add_reader remove_reader add_writer remove_writer create_connection create_server create_datagram_endpoint"
    " create_unix_connection create_unix_server connect_accepted_socket getaddrinfo getnameinfo sendfile start_tls sock_accept"
    " sock_connect sock_recv sock_recv_into sock_recvfrom sock_recvfrom_into sock_sendall sock_sendfile sock_sendto",
    "a change of the loop": "set_task_factory set_exception_handler set_debug add_signal_handler remove_signal_handler run_forever"
    " run_until_complete stop close",
}


def _refusal(what: str, name: str) -> Callable[..., NoReturn]:
    def refused(self: TurnLoop, *args: object, **options: object) -> NoReturn:
        raise NotDurable(f"{what} (loop.{name})", "do it outside the actor and send the outcome as an event")

    refused.__doc__ = f"Refused: {what} is not durable."
    return refused


for _what, _names in REFUSED.items():
    for _name in _names.split():
        setattr(TurnLoop, _name, _refusal(_what, _name))


def new_turn_loop() -> TurnLoop:
    """A loop for the turns of one host."""
    return TurnLoop()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]  # what it lacks by its text is set above


def _place(task: asyncio.Task[Any]) -> str:
    frames = task.get_stack()
    if not frames:
        return task.get_name()
    frame = frames[-1]
    return f"{frame.f_code.co_filename}:{frame.f_lineno}, in {frame.f_code.co_name},"
