"""Peace: while a host audits its accounts, nobody else may bring money in.

A lock on a file, which the system drops when its holder is killed. Who wants it looks again and again, so that no event loop stands still.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

AGAIN: Final = 0.002  # seconds between looks


@asynccontextmanager
async def business(place: Path) -> AsyncIterator[None]:
    """Several may do business at once; nobody does while there is peace."""
    async with _locked(place, fcntl.LOCK_SH):
        yield


@asynccontextmanager
async def peace(place: Path) -> AsyncIterator[None]:
    """Nobody else does business."""
    async with _locked(place, fcntl.LOCK_EX):
        yield


@asynccontextmanager
async def _locked(place: Path, kind: int) -> AsyncIterator[None]:
    with (place / "peace").open("w") as file:
        while True:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                await asyncio.sleep(AGAIN)
        yield
