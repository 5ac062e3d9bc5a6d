"""The doorbell: a Unix datagram socket at which other processes tell the host that something is in the inbox.

A ring can get lost, an offer cannot: it is durable in the inbox before anybody rings, and the host empties the socket before it looks into
the inbox. So a ring that finds the socket full is not needed (the host has yet to look), and one that finds no host is not either (the
next host looks when it starts). A host whose bell was deleted, or could not be made, looks by the clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
from typing import Final, final

PREFIX: Final = "perdure-"
BELL: Final = "bell"

SLOW_LOOK: Final = 60.0  # seconds between looks of a host that has a bell: only for a socket that somebody deleted
FAST_LOOK: Final = 1.0  # seconds, without one
_MAX_PATH: Final = 100  # bytes: sockaddr_un has room for 108 (104 on macOS), and long paths fail only when used


@final
class Doorbell:
    """The host's end. Belongs to the event loop that makes it."""

    def __init__(self) -> None:
        self.path = ""  # where to ring; empty if no socket could be made
        self._directory = ""
        self._socket: socket.socket | None = None
        self._rung = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            self._hang()

    def __repr__(self) -> str:
        return f"<Doorbell {self.path or 'without a socket'}>"

    @property
    def works(self) -> bool:
        """Whether others can reach it."""
        return self._socket is not None and os.path.exists(self.path)

    def listen(self) -> None:
        """From now on a ring ends the next `wait`: call it before looking into the inbox."""
        self._rung.clear()

    def ring(self) -> None:
        """Ring from inside."""
        self._rung.set()

    async def wait(self) -> None:
        """Return at the next ring since `listen`, or when it is time to look anyway."""
        # By `wait_for` each ring would cost a client's ask two more rounds of the loop.
        alarm = self._loop.call_later(SLOW_LOOK if self.works else FAST_LOOK, self._rung.set)
        try:
            await self._rung.wait()
        finally:
            alarm.cancel()

    def take_down(self) -> None:
        """Remove the socket, and end every `wait`."""
        self._rung.set()
        if self._socket is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        if self._directory:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _hang(self) -> None:
        self._directory = tempfile.mkdtemp(prefix=PREFIX, dir=_runtime_directory())  # mode 0700
        path = os.path.join(self._directory, BELL)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        try:
            self._socket.bind(path)
            self._loop.add_reader(self._socket, self._hear)
        except (OSError, NotImplementedError):
            self.take_down()
            self._rung.clear()
        else:
            self.path = path

    def _hear(self) -> None:
        assert self._socket is not None
        with contextlib.suppress(BlockingIOError):
            for _ in range(1000):
                self._socket.recv(1)
        self._rung.set()


def ring(path: str) -> None:
    """Ring at another process, if there is one: see above why it may fail without a word."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        caller.setblocking(False)
        caller.sendto(b"!", path)


def clear_away(path: str) -> None:
    """Remove the socket that a killed host left, and its directory if nothing else is in it; not one that somebody listens at.

    A copy of a store names the bell of the original, whose host may be at work.
    """
    if os.path.basename(path) != BELL or not os.path.basename(os.path.dirname(path)).startswith(PREFIX):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as caller:
        try:
            caller.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            os.rmdir(os.path.dirname(path))


def _runtime_directory() -> str:
    directory = os.environ.get("XDG_RUNTIME_DIR", "")
    usable = os.path.isabs(directory) and os.access(directory, os.W_OK | os.X_OK)
    return directory if usable and len(os.fsencode(directory)) + len("/perdure-xxxxxxxx/bell") < _MAX_PATH else "/tmp"  # noqa: S108
