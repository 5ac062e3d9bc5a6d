"""The keeper of a runtime: a task that enters and leaves it, whichever tasks of a test and its fixtures begin and end their world."""

from __future__ import annotations

import asyncio
from typing import final

from .._runtime import Runtime


@final
class Keeper:
    """Keeps a runtime from `begin` to `end`."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._ending = asyncio.Event()
        self._begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(), name="the host of a world")

    def __repr__(self) -> str:
        return f"<Keeper of {self.runtime!r}>"

    @property
    def problem(self) -> BaseException | None:
        """What the runtime has ended with, by itself."""
        return self._task.exception() if self._task.done() and not self._task.cancelled() else None

    async def begin(self) -> None:
        """Return once the host takes turns. Raises why it cannot."""
        await asyncio.wait([self._begun, self._task], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task

    async def end(self) -> None:
        """Leave the runtime. Raises what it has ended with."""
        self._ending.set()
        await self._task

    async def _keep(self) -> None:
        async with self.runtime:
            self._begun.set_result(None)
            await self._ending.wait()
