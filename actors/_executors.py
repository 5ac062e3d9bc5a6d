"""Where a step's function runs: on the host's loop, in a thread, in a process. Threads and processes are there once a step needs them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, update_wrapper
from typing import TYPE_CHECKING, Any, Final, final

from ..tracing import outgoing_headers
from ._ids import ActorId, MessageId
from ._process_call import in_a_process
from ._settings import AroundSteps
from ._step import Compensated, Executor, Step
from ._threads import Threads

if TYPE_CHECKING:
    from ._processes import Processes

THREADS: Final = 64  # `def` steps that run at the same time


@final
class Executors:
    """The executors of one epoch; `around` stands around each call."""

    __slots__ = ("_around", "_processes", "_threads")

    def __init__(self, around: AroundSteps | None = None) -> None:
        self._around = around
        self._threads: Threads | None = None
        self._processes: Processes | None = None

    async def call(
        self,
        step: Step[..., Any],
        executor: Executor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        about: tuple[ActorId, int, MessageId, Any],
        compensates: Compensated | None,
    ) -> Any:
        """Call the function once; returns or raises as it does. `about` is the step's actor, attempt, request and progress."""
        run = partial(self._call, step, executor, args, kwargs, about, compensates)
        return await (run() if self._around is None else self._around(step, args, kwargs, run))

    async def close(self) -> None:
        """Wait for what still runs to end."""
        if self._threads is not None:
            await self._threads.close()
        if self._processes is not None:
            await self._processes.close()

    async def _call(
        self,
        step: Step[..., Any],
        executor: Executor,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        about: tuple[ActorId, int, MessageId, Any],
        compensates: Compensated | None,
    ) -> Any:
        if step.is_async:
            return await step.function(*args, **kwargs)
        if executor == "thread":
            self._threads = self._threads or Threads(THREADS)
            return await self._threads.run(partial(step.function, *args, **kwargs))
        if self._processes is None:
            from ._processes import Processes  # only who has such steps loads it

            self._processes = Processes()
        call: Callable[[], Any] = partial(in_a_process, step.function, args, kwargs, about, compensates, outgoing_headers())
        return await self._processes.run(update_wrapper(call, step.function, updated=()))  # errors are to name the step
