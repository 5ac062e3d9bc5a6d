"""Attempts at work: tasks that end with their host, also those that do not let themselves be cancelled."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final, final

import anyio

ENDS_WITHIN: Final = 3.0  # seconds that an attempt has to end when its host does

logger = logging.getLogger("perdure.actors")


@final
class Attempts:
    """The attempts of one epoch."""

    __slots__ = ("_group", "_running")

    def __init__(self) -> None:
        self._group: asyncio.TaskGroup | None = None
        self._running: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"<Attempts, {len(self._running)} running>"

    @property
    def are_begun(self) -> bool:
        """Whether any may begin: the host is at work, and not at its end."""
        return self._group is not None

    def begin(self, attempt: Coroutine[Any, Any, None], name: str, context: contextvars.Context) -> asyncio.Task[None]:
        """Let one run; `name` is for people."""
        assert self._group is not None
        task = self._group.create_task(attempt, name=name, context=context)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def run(self, meanwhile: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Let attempts run while something else does, until cancelled: then those that run are cancelled, too."""
        stubborn: list[asyncio.Task[None]] = []
        breaking_off: asyncio.TimerHandle | None = None
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                try:
                    await meanwhile()
                finally:
                    self._group = None  # what ends now is to begin nothing
                    breaking_off = asyncio.get_running_loop().call_later(ENDS_WITHIN, self._break_off, stubborn)
                    await self._end()
        except BaseExceptionGroup as errors:
            broken_off = [task.exception() for task in stubborn if not task.cancelled()]
            others = errors.subgroup(lambda error: error not in broken_off and not isinstance(error, BaseExceptionGroup))
            if others is not None:
                raise others from None
        finally:
            if breaking_off is not None:
                breaking_off.cancel()

    async def _end(self) -> None:
        """Cancel what runs, and wait for it; the host's own cancel, which comes again and again, would keep the loop busy meanwhile."""
        with anyio.CancelScope(shield=True):
            for task in self._running:
                task.cancel()
            if self._running:
                await asyncio.wait(self._running)

    def _break_off(self, stubborn: list[asyncio.Task[None]]) -> None:
        """End what does not let itself be cancelled, as a generator is ended: the host would wait for it for ever."""
        for task in list(self._running):
            logger.error("%s does not let itself be cancelled, and is broken off: its host ends", task.get_name())
            coroutine = task.get_coro()
            assert coroutine is not None
            with suppress(Exception):  # it may swallow that, too: then nothing can end it
                coroutine.close()
            task.cancel()
            stubborn.append(task)
