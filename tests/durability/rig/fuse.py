"""A host of fuses, each of which can kill it: run in a process of its own.

    python -m tests.durability.rig.fuse URL

Says "hosting" when it does, and then serves until SIGTERM.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Final

from perdure.actors import Retry, Runtime, current_actor, durable_actor, on_event

TURN_LIMIT: Final = 0.2  # seconds


class Bomb:
    """Kills whoever decodes it."""

    def __setstate__(self, state: object) -> None:
        os._exit(3)

    def __getstate__(self) -> object:
        return "armed"


@durable_actor(retry=Retry(initial=timedelta(milliseconds=10)))
class Fuse:
    """Counts, until it blows."""

    def __init__(self) -> None:
        self.count = 0
        self.bomb: Bomb | None = None

    @on_event
    def add(self) -> int:
        self.count += 1
        return self.count

    @on_event
    def arm(self) -> None:
        self.bomb = Bomb()

    @on_event
    def exit(self) -> None:
        os._exit(3)

    @on_event
    def interrupt(self) -> None:
        raise KeyboardInterrupt

    @on_event
    def stumble(self) -> None:
        if current_actor().attempt <= 2:
            os._exit(3)
        raise ValueError("the third time it stands")

    @on_event
    def kill(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @on_event
    def block(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()  # in C, and in the main thread, so no exception gets through


async def host(url: str) -> None:
    """Serve until SIGTERM."""
    async with Runtime(url, [Fuse], turn_limit=TURN_LIMIT) as runtime:
        print("hosting", flush=True)
        await runtime.serve()


if __name__ == "__main__":
    asyncio.run(host(sys.argv[1]))
