"""Worlds for the tests of actors to run in, and a way to wait for what nobody tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
from perdure.actors.testing import World


class MakeWorld(Protocol):
    """Enters a world of some actor types; it ends with the test."""

    async def __call__(self, *actors: type, **options: Any) -> World: ...


Deploy = Callable[..., AbstractAsyncContextManager[World]]


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once something is so, of which no future tells; it must be soon."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110  a thread may make it true
            await asyncio.sleep(0.001)


@pytest.fixture(params=["memory", "lmdb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The same promises hold on every store."""
    return "memory:" if request.param == "memory" else f"lmdb:{tmp_path}/store"


@pytest.fixture
async def make_world(store_url: str, pytestconfig: pytest.Config) -> AsyncIterator[Callable[..., Any]]:
    """Makes worlds, as crowded as the command line says."""
    async with AsyncExitStack() as worlds:

        async def make(*actors: type, **options: Any) -> World:
            options.setdefault("max_active", pytestconfig.getoption("max_active"))
            return await worlds.enter_async_context(World(actors, store=store_url, **options))

        yield make


@pytest.fixture
def deploy(tmp_path: Path) -> Deploy:
    """A host of one store with the classes given, and no others: each call is another deploy."""

    @asynccontextmanager
    async def deployed(*types: type, **options: Any) -> AsyncIterator[World]:
        async with World(types, store=f"lmdb:{tmp_path}/store", **options) as world:
            yield world
            await world.settled()

    return deployed
