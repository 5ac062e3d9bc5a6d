"""Rivals: they try to host a store that has a host at work, from another process, and from the host's own.

    python -m tests.durability.rig.rivals PLACE COUNT [--beside]

tries so many times, and says in a line of JSON what came of each; `--beside` is a life of a host that works, and at whose side they try; it
works on until it is killed, and leaves a forked child behind, which lives until its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import warnings
from pathlib import Path

from perdure.actors import Runtime
from perdure.storage import PerdureError

from .bank import ACTORS, Account
from .host import Life, live


async def try_to_host(url: str, count: int) -> list[str]:
    """Try so many times; returns what came of each: the error's name and whom it names, or nothing of the kind."""
    return [await one_try(url) for _ in range(count)]


async def one_try(url: str) -> str:
    """Try, and deposit something if that succeeds."""
    try:
        async with Runtime(url, ACTORS) as bank:
            await bank.ref(Account, "account-0").ask(Account.deposit, "a rival", 1, 1)
    except PerdureError as error:
        return f"{type(error).__name__} {getattr(error, 'pid', '')}"
    return "hosted"


async def live_beside(life: Life, count: int) -> None:
    """Work, while rivals try in this process; and leave a child that does nothing, and outlives it."""
    working = asyncio.Event()
    host = asyncio.ensure_future(live(life, working.set))
    await working.wait()
    beside = await try_to_host(life.url, count)
    if not os.fork():
        os.read(sys.stdin.fileno(), 1)  # until the test has seen the next host
        os._exit(0)
    print(json.dumps(beside), flush=True)
    await host


def main() -> None:
    """Do as the command line says."""
    _, place, count, *beside = sys.argv
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that first attempts fail is part of the load
    warnings.simplefilter("ignore", DeprecationWarning)  # that there are threads beside the fork is the point
    life = Life(Path(place), 1)
    if beside:
        asyncio.run(live_beside(life, int(count)))
    else:
        print(json.dumps(asyncio.run(try_to_host(life.url, int(count)))), flush=True)


if __name__ == "__main__":
    main()
