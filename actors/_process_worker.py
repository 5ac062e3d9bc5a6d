"""The worker's end of a process pool: makes the calls that its host sends, one at a time.

It ends when its host ends, however that happens and whatever the call is doing, and takes with it what the call has started.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from enum import IntEnum
from functools import partial
from typing import BinaryIO, Final

import msgspec

from ._codec import PICKLE
from ._failure import Failure

_HEADER: Final = struct.Struct("<BQ")  # kind, length of what follows
_OOM_SCORE_ADJUSTMENT: Final = "1000"  # the highest (proc(5)): where memory runs out a worker is killed, not its host


class Kind(IntEnum):
    """What a frame between a host and its worker holds."""

    CALL = 1  # a pickled callable, to be called without arguments
    RETURNED = 2  # the pickled value that it returned
    RAISED = 3  # a Failure as MessagePack


def send(channel: socket.socket, kind: Kind, payload: bytes) -> None:
    """Send one frame. Raises OSError where the other side is gone."""
    channel.sendall(_HEADER.pack(kind, len(payload)))
    channel.sendall(payload)


def receive(reader: BinaryIO) -> tuple[Kind, bytes]:
    """The next frame. Raises EOFError or OSError where the other side is gone."""
    kind, length = _HEADER.unpack(_exactly(reader, _HEADER.size))
    return Kind(kind), _exactly(reader, length)


def serve(channel: int, lifeline: int) -> None:
    """Answer the calls that come by the channel, until it ends. Nothing comes by the lifeline: its end is the end of the host."""
    for descriptor in (channel, lifeline):
        os.set_inheritable(descriptor, False)
    _end_with(lifeline)
    _leave_signals_to_the_host()
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(_OOM_SCORE_ADJUSTMENT)
    connection = socket.socket(fileno=channel)
    os.register_at_fork(after_in_child=partial(_forget, connection))
    with contextlib.suppress(EOFError, OSError), connection, connection.makefile("rb") as reader:
        while True:
            _, request = receive(reader)
            kind, reply = _answer(request)
            del request
            _flush()
            send(connection, kind, reply)
            del reply


def _exactly(reader: BinaryIO, length: int) -> bytes:
    data = reader.read(length)
    if len(data) < length:
        raise EOFError
    return data


def _answer(request: bytes) -> tuple[Kind, bytes]:
    try:
        call: Callable[[], object] = pickle.loads(request)
        return Kind.RETURNED, PICKLE.encode(call())
    except BaseException as error:  # noqa: BLE001  the call may raise anything
        return Kind.RAISED, msgspec.msgpack.encode(Failure.of(error))


def _flush() -> None:
    """What the call printed is out before its outcome, and not lost if the worker is killed later."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the call may have put anything in its place
            stream.flush()


def _end_with(lifeline: int) -> None:
    """Have this process and all that it starts killed as soon as nobody holds the other end of the pipe."""
    if sys.platform == "linux":
        import fcntl

        # By the kernel, since a call that keeps the GIL, such as a hopeless regular expression, keeps every thread from running.
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    # Also by a thread: other systems cannot do that, and the host may have been gone before it was asked for.
    threading.Thread(target=_await_the_end, args=(lifeline,), name="perdure-lifeline", daemon=True).start()


def _await_the_end(lifeline: int) -> None:
    os.read(lifeline, 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _leave_signals_to_the_host() -> None:
    """What is sent to all processes of a service or terminal must not end a call that the host still waits for."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a handler, since SIG_IGN would be inherited by the programs that a call starts


def _forget(connection: socket.socket) -> None:
    """A fork of this process is no worker: it can be terminated, and does not keep the channel open when the worker dies."""
    os.close(connection.detach())  # its own close would wait for the reader's
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
