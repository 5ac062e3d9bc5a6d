"""The process that the demo kills: a host on the demo's store, started anew as often as need be.

However the demo ends, `close` leaves no process behind.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final, final

import anyio
import anyio.to_thread

from ....storage import PerdureError

STOPS_WITHIN: Final = 10.0  # seconds that a host has to end in order
LOOK_EVERY: Final = 0.05  # seconds


@final
class HostFailed(PerdureError):
    """The host ended by itself. `status` is its exit status, `said` what it wrote to standard error."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(status, said)
        self.status = status
        self.said = said

    def __str__(self) -> str:
        return f"the host ended by itself with status {self.status}.\n{self.said}".rstrip()


@final
class HostProcess:
    """A host in a process of its own, on the store of a URL; `directory` is for its log and its sockets."""

    def __init__(self, url: str, directory: Path) -> None:
        self._url = url
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._is_serving = False

    def __repr__(self) -> str:
        return f"<HostProcess on {self._url}: {self._process.pid if self._process else 'not started'}>"

    def start(self) -> None:
        """Start a host; it is not serving yet."""
        self._is_serving = False
        with (self._directory / "host.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  this very program
                [sys.executable, "-P", "-m", f"{__package__}._host", self._url],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "XDG_RUNTIME_DIR": str(self._directory)},  # what a killed host leaves there goes with the directory
                start_new_session=True,  # Ctrl-C is for the demo, which then stops its host
            )

    async def serving(self) -> None:
        """Return when it serves. Raises HostFailed."""
        assert self._process is not None
        assert self._process.stdout is not None
        if not self._is_serving and not await anyio.to_thread.run_sync(self._process.stdout.readline, abandon_on_cancel=True):
            raise HostFailed(self._process.wait(), self._log())
        self._is_serving = True

    async def watch(self) -> None:
        """Never return; raise HostFailed once the host has ended without having been killed."""
        while True:
            await anyio.sleep(LOOK_EVERY)
            if self._process is not None and (status := self._process.poll()) is not None:
                raise HostFailed(status, self._log())

    def kill_and_start(self) -> None:
        """SIGKILL the host, and start another."""
        self.close()
        self.start()

    async def stop(self) -> None:
        """Let it end in order."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await anyio.to_thread.run_sync(self._process.wait, STOPS_WITHIN)
        self.close()

    def close(self) -> None:
        """Kill it, if it still runs."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def _log(self) -> str:
        return (self._directory / "host.log").read_text(errors="replace")[-4000:]
