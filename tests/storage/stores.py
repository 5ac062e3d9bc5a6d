"""What the tests of stores share: batches in one line, and programs in other processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from perdure.storage import Batch


class Process:
    """A program in another process, spoken with line by line."""

    def __init__(self, program: str, *arguments: str) -> None:
        command = [sys.executable, "-c", program, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def reads(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def hears(self, line: str) -> None:
        """Give it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def stops(self) -> None:
        """Stand still, holding what it holds."""
        os.kill(self.pid, signal.SIGSTOP)

    def dies(self) -> None:
        """End without a word."""
        self._process.kill()
        self._process.communicate()


Elsewhere = Callable[..., Process]


def exists(*path: str) -> bool:
    """Whether there is such a file."""
    return os.path.exists(os.path.join(*path))


async def until(condition: Callable[[], bool]) -> None:
    """Return once the condition holds; a test's time-out ends the wait."""
    while not condition():  # noqa: ASYNC110  (what is waited for happens on a thread)
        await asyncio.sleep(0.001)


def batch_of(**rows: bytes) -> Batch:
    """A batch of puts."""
    batch = Batch()
    for key, value in rows.items():
        batch.put(key.encode(), value)
    return batch
