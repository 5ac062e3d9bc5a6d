"""The demo's host, a process of its own: hosts the demo's actors until it is told to stop, or killed, or the demo itself is gone.

python -m perdure.actors.ops.demo._host lmdb:PATH
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial

import anyio

from ..._runtime import Runtime
from .._serving import serve
from . import Case, Order


def main() -> None:
    """Host the store that is named by the first argument, and say so on standard output."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    anyio.run(partial(serve, [Order, Case], sys.argv[1], _say))


def _say(_: Runtime) -> None:
    sys.stdout.write("serving\n")
    sys.stdout.flush()


def _stop_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end of the pipe is gone, however it went
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
