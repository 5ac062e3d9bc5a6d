"""Stores in a directory of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from perdure.storage import Fence
from perdure.storage._lmdb import LmdbStore

from .stores import Elsewhere, Process


@pytest.fixture
def place(tmp_path: Path) -> str:
    """Where the store is kept."""
    return str(tmp_path / "orders")


@pytest.fixture
async def store(place: str) -> AsyncIterator[LmdbStore]:
    """An LMDB store with a small map and a small reserve."""
    opened = LmdbStore(place, map_size=1 << 20, ballast_size=1 << 16)
    yield opened
    await opened.close()


@pytest.fixture
async def fence(store: LmdbStore) -> Fence:
    """The ownership of its partition 0."""
    return await store.own(0)


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    """Starts a program in another process; its arguments are in sys.argv."""
    started: list[Process] = []

    def run(program: str, *arguments: str) -> Process:
        started.append(Process(program, *arguments))
        return started[-1]

    yield run
    for process in started:
        process.dies()
