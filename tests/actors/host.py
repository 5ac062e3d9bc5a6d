"""A host in a process of its own, for clients that live longer than it: python -m tests.actors.host URL."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from types import TracebackType
from typing import Self, final

from perdure.actors import Runtime

from .bank import Account, Counter


@final
class HostProcess:
    """Hosts the bank in a child process, from `with` to its end. It is serving when `with` is entered."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "tests.actors.host", url], stdout=subprocess.PIPE)
        self.pid = self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        """Stop it, or let it go on."""
        self._process.send_signal(number)

    def fork(self) -> int:
        """Let it leave a child behind, which does nothing; returns the child's process id."""
        self._process.send_signal(signal.SIGUSR1)
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())

    def kill(self) -> None:
        """End it as by kill -9."""
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"serving\n"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.kill()


def _fork(*_: object) -> None:
    """Leave a child behind that has whatever this process had open."""
    pid = os.fork()
    if pid:
        print(pid, flush=True)
    else:
        signal.pause()


async def _host(url: str) -> None:
    signal.signal(signal.SIGUSR1, _fork)
    async with Runtime(url, [Account, Counter]) as runtime:
        print("serving", flush=True)
        await runtime.serve()


if __name__ == "__main__":
    asyncio.run(_host(sys.argv[1]))
