"""A store whose map is small at first and grows under load, while other processes have it open.

    python -m tests.durability.rig.growth PLACE ROLE MIB

Roles: `host` hosts, and once it is told to it fills the store up to so many MiB while accounts work; it audits at the end of its input.
`read` is a client that reads everything there is, and `fill` one that sends long payloads, both until there is a file PLACE/end. Each says
when it has the store open, the host when the store has grown, and all in a line of JSON what they came to.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple, cast, final

from perdure.actors import Client, Runtime, durable_actor, on_event, query
from perdure.storage._lmdb import LmdbStatistics, LmdbStore

from .bank import ACTORS, Account
from .host import ACCOUNTS, Life, Past, audit
from .ledger import Ledger
from .load import Sender
from .orders import Order
from .remains import Remains

FIRST_MAP: Final = 1 << 20  # bytes
PARCEL: Final = 256 << 10  # bytes of the host's own parcels
LONG: Final = 2 << 20  # bytes of a client's
TOGETHER: Final = 4  # parcels on their way at once
PAUSE: Final = 0.005  # seconds


@durable_actor
class Box:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.parcel = b""

    @on_event
    def put(self, parcel: bytes) -> int:
        self.parcel = parcel
        return len(parcel)

    @query
    def size(self) -> int:
        return len(self.parcel)


@final
class Growth(NamedTuple):
    """What a process came to: bytes of its map at first and at the end, and how often it has done what it does."""

    first: int
    last: int
    done: int
    violations: list[str]


async def statistics(place: Path) -> LmdbStatistics:
    """Of the environment that this process has open."""
    store = LmdbStore(str(place / "store"), create=False)
    try:
        return store.statistics()
    finally:
        await store.close()


async def host(place: Path, size: int) -> Growth:
    """Host."""
    life = Life(place, 1, rows=False)
    async with Runtime(life.url, [*ACTORS, Order, Box]) as bank:
        first = (await statistics(place)).map_size
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        ledger = Ledger(place / "ledger")
        senders = [Sender(bank, ledger, f"sender {number}", ACCOUNTS, 2) for number in range(2)]
        working = asyncio.gather(*(sender.run() for sender in senders))
        put = 0
        while (await statistics(place)).file_size < size:
            boxes = [bank.ref(Box, f"of the host {number}") for number in range(put, put + TOGETHER)]
            await asyncio.gather(*(box.ask(Box.put, bytes(PARCEL)) for box in boxes))
            put += TOGETHER
        print("grown", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
        _, violations = await audit(bank, life, Past(Remains(), []))
        return Growth(first, (await statistics(place)).map_size, put, violations)


async def read(place: Path, _: int) -> Growth:
    """Read."""
    async with Client(f"lmdb:{place}/store", [Account, Box]) as client:
        first = (await statistics(place)).map_size
        print("open", flush=True)
        done = 0
        wrong: list[str] = []
        while not (place / "end").exists():
            boxes = [info.id.key async for info in client.actors(Box)]
            [letter async for letter in client.dead_letters()]
            if boxes and not await client.ref(Box, boxes[-1]).query(Box.size):
                wrong.append(f"{boxes[-1]} is empty")
            await client.ref(Account, "account-0").query(Account.facts)
            done += 1
            await asyncio.sleep(PAUSE)
        return Growth(first, (await statistics(place)).map_size, done, wrong)


async def fill(place: Path, _: int) -> Growth:
    """Send."""
    async with Client(f"lmdb:{place}/store") as client:
        first = (await statistics(place)).map_size
        print("open", flush=True)
        done = 0
        for number in count():
            if (place / "end").exists():
                break
            boxes = [client.ref(Box, f"of a client {number % 4}-{each}") for each in range(TOGETHER)]
            await asyncio.gather(*(box.ask(Box.put, bytes(LONG)) for box in boxes))
            done += len(boxes)
        return Growth(first, (await statistics(place)).map_size, done, [])


ROLES: Final = {"host": host, "read": read, "fill": fill}


def main() -> None:
    """Do as the command line says, with a small map at first."""
    _, place, role, size = sys.argv
    logging.getLogger("perdure").setLevel(logging.CRITICAL)  # that first attempts fail is part of the load
    cast("dict[str, int]", LmdbStore.__init__.__kwdefaults__)["map_size"] = FIRST_MAP
    print(json.dumps(asyncio.run(ROLES[role](Path(place), int(size) << 20))), flush=True)


if __name__ == "__main__":
    main()
