"""What do actors cost that nobody talks to? In memory, on disk, and at the start of their host.

Memory is the growth of `RssAnon` (the process's own pages; RSS would count LMDB's map too) by `MANY` actors that were asked once, after
others, in a process of its own. Baseline `state`: the same objects in a dict, without a host. `active` are idle actors in memory; `passive`
ones have been evicted, since their host keeps only `FIRST`.

On disk: the blocks of `data.mdb` with `STORED` actors whose pickled state has about 200 bytes, each committed once. At the start: from
entering a `Runtime`, in a new process that has imported everything, to the first line of the first handler, where `WITH_WORK` of those
actors have an event to handle.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from perdure.actors import Retry, Runtime, current_actor, durable_actor, on_event

from .measure import Report, answer, subprocess_answer, together
from .tally import Tally

FIRST: Final = 5_000
MANY: Final = 20_000
STORED: Final = 100_000
WITH_WORK: Final = 100
IN_FLIGHT: Final = 256
DUE_AFTER: Final = 1.0  # seconds until the work that waits is due


@durable_actor(retry=Retry(max_attempts=9, initial=timedelta(seconds=DUE_AFTER)))
class Customer:
    """About 200 bytes of pickled state."""

    first_turn = 0.0  # of this process

    def __init__(self) -> None:
        self.name = ""
        self.address = "14 Harbour Lane, Bristol, BS1 5TY"
        self.email = "someone@example.com"
        self.orders = [4711, 4712, 4713]
        self.open = True

    @on_event
    def rename(self, name: str) -> None:
        """Take a name."""
        self.name = name

    @on_event
    def ship(self) -> None:
        """Fail in the first host, so that the event waits for the next one."""
        if not current_actor().resources["carrier"]:
            raise ConnectionError("no carrier")
        Customer.first_turn = Customer.first_turn or time.perf_counter()


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    state = await in_subprocess("state", directory)
    active = await in_subprocess("active", directory)
    passive = await in_subprocess("passive", directory)
    report.add("state alone", state, "bytes/actor")
    report.add("an idle active actor, beyond its state", active - state, "bytes/actor", at_most=2048)
    report.add("a passive actor", passive, "bytes/actor", at_most=10)
    store = directory / "stored"
    await in_subprocess("store", store)
    report.add(f"{STORED:,} actors on disk", (store / "data.mdb").stat().st_blocks * 512 / 1e6, "MB", at_most=60)
    await asyncio.sleep(DUE_AFTER)
    report.add(f"first turn, {WITH_WORK} of them having work", await in_subprocess("start", store), "s", at_most=0.5)


async def in_subprocess(what: str, path: Path) -> float:
    """What one of `MEASUREMENTS` returns in a process of its own."""
    return (await subprocess_answer("benchmarks.rest", what, path))["value"]


async def state(_: Path) -> float:
    """Bytes for each object in a dict."""
    tallies = {f"tally {number}": Tally() for number in range(FIRST)}
    before = own_memory()
    tallies |= {f"tally {number}": Tally() for number in range(FIRST, FIRST + MANY)}
    for tally in tallies.values():
        tally.count += 1000
    return (own_memory() - before) / MANY


async def active(directory: Path) -> float:
    """Bytes for each idle actor in memory."""
    return await growth(f"lmdb:{directory / 'active'}", FIRST, FIRST + MANY)


async def passive(directory: Path) -> float:
    """Bytes for each actor that was in memory."""
    return await growth(f"lmdb:{directory / 'passive'}", FIRST + MANY, FIRST)


async def growth(url: str, first: int, max_active: int) -> float:
    """Bytes for each actor that is asked once, after others have been."""
    async with Runtime(url, actors=[Tally], max_active=max_active) as runtime:
        await together(IN_FLIGHT, askings(runtime, 0, first))
        await runtime.settled()
        before = own_memory()
        await together(IN_FLIGHT, askings(runtime, first, first + MANY))
        await runtime.settled()
        return (own_memory() - before) / MANY


def askings(runtime: Runtime, start: int, stop: int) -> Iterator[Awaitable[int]]:
    """One ask for each actor."""
    return (runtime.ref(Tally, f"tally {number}").ask(Tally.add, 1000) for number in range(start, stop))


def own_memory() -> int:
    """Bytes of this process's own pages."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("this needs the RssAnon of Linux")


async def store(path: Path) -> float:
    """Fill a store, and leave work in it."""
    logging.disable()  # that the work fails is meant
    async with Runtime(f"lmdb:{path}", actors=[Customer], resources={"carrier": None}) as runtime:
        await together(IN_FLIGHT, renamings(runtime))
        for number in range(0, STORED, STORED // WITH_WORK):
            await runtime.ref(Customer, f"customer {number}").send_event(Customer.ship)
    return STORED


def renamings(runtime: Runtime) -> Iterator[Awaitable[None]]:
    """One event for each actor."""
    return (runtime.ref(Customer, f"customer {number}").ask(Customer.rename, f"number {number}") for number in range(STORED))


async def start(path: Path) -> float:
    """Seconds until the first turn."""
    begin = time.perf_counter()
    async with Runtime(f"lmdb:{path}", actors=[Customer], resources={"carrier": "post"}) as runtime:
        await runtime.settled()
    return Customer.first_turn - begin


MEASUREMENTS: Final[dict[str, Callable[[Path], Awaitable[float]]]] = {
    each.__name__: each for each in (state, active, passive, store, start)
}


async def measure_here(what: str, path: str) -> None:
    """Print what one measurement returns, for the process that began this one."""
    print(json.dumps({"value": await MEASUREMENTS[what](Path(path))}))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in MEASUREMENTS:
        asyncio.run(measure_here(*sys.argv[1:]))
    else:
        answer(__doc__, measure)
