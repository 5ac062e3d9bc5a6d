"""The bank and the counter that the tests of actors use, and worlds to run them in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from perdure.actors.testing import World


class MakeWorld(Protocol):
    """Enters a world of some actor types; it ends with the test."""

    async def __call__(self, *actors: type, **options: Any) -> World: ...


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
