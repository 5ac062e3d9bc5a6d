"""The keeper of a world's hosts: one after the other on one store, each entered and left in a task of its own.

So a test and its fixtures may begin a world in one task and end it in another.
"""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import final

from ...storage import CommitUncertain, MemoryDisk, MemoryStore, Store, open_store
from .._runtime import Runtime
from .._settings import Settings
from ._store import UnsteadyStore


@final
class Keeper:
    """Keeps a host on the store of that URL; of one in memory, the disk outlives them all."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._disk = MemoryDisk()
        self._store: UnsteadyStore | None = None
        self._runtime: Runtime | None = None
        self._task: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Keeper of {self._runtime!r}>"

    @property
    def store(self) -> UnsteadyStore:
        """The store in front of the host's."""
        assert self._store is not None, "use the world inside `async with`"
        return self._store

    @property
    def runtime(self) -> Runtime:
        """The runtime of now."""
        assert self._runtime is not None, "use the world inside `async with`"
        return self._runtime

    @property
    def problem(self) -> BaseException | None:
        """What the host has ended with, by itself."""
        return None if self._task is None or not self._task.done() or self._task.cancelled() else self._task.exception()

    @property
    def is_alive(self) -> bool:
        """Whether there is a host, be it between two epochs."""
        return self._task is not None and not self._task.done()

    def another(self, number: int) -> str:
        """The URL for the store of another world like this one, by its number."""
        return self._url if self._url == "memory:" else f"{self._url}-{number}"

    def reopened(self) -> str | Store:
        """Where what the hosts have left may be looked at once they have ended: the URL, or a store on the disk in memory."""
        return MemoryStore(self._disk) if self._url == "memory:" else self._url

    def erase(self) -> None:
        """Remove the store's directory, once the hosts have ended: each holds some MiB."""
        if self._url.startswith("lmdb:"):
            shutil.rmtree(self._url.removeprefix("lmdb:"))

    async def begin(self, settings: Settings) -> None:
        """Return once a host takes turns. Raises why it cannot."""
        beneath = self.reopened()
        self._store = UnsteadyStore(open_store(beneath) if isinstance(beneath, str) else beneath, self._store)
        self._runtime = Runtime.with_settings(self._store, settings)
        self._ending.clear()
        begun = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(self._runtime, begun), name="the host of a world")
        try:
            await asyncio.wait([begun, self._task], return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                await self._task
        except BaseException:  # who is cancelled meanwhile leaves no host behind, and no store that is locked
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._store.close()
            raise

    async def end(self) -> None:
        """End the host in order. Raises what it has ended with."""
        if self._task is not None:
            self.store.flow()
            self._ending.set()
            try:
                await self._task
            finally:
                await self.store.close()

    async def kill(self) -> None:
        """End the host as kill -9 would."""
        self.runtime.abort()
        with suppress(CommitUncertain):  # it may be dying of another crash already
            await self.end()

    async def _keep(self, runtime: Runtime, begun: asyncio.Future[None]) -> None:
        async with runtime:
            begun.set_result(None)
            await self._ending.wait()
