"""How many messages does a host handle in a second, beside a program that was written by hand for nothing else? At full load.

Baseline `by hand`: one asyncio program in the same process, without any framework. Its objects are found in a dict by their key; for each
message the method is called at once, the object (about 110 bytes) is pickled, and a future made; while one batch is committed in a
thread (one `putmulti`, one commit), the next one fills. Nothing is checked, copied, logged, limited or recovered. Both have `ACTORS` actors
and `IN_FLIGHT` tasks that each ask one of them at random and wait for the durable answer. They take turns in rounds of `MESSAGES`, and
medians are compared.

A chain is one message that each actor passes on to the next: it costs turns, but hardly commits.
"""

from __future__ import annotations

import asyncio
import pickle
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, Self, final

import lmdb
from perdure.actors import Runtime
from perdure.storage import marker_key, open_store, unpack

from .measure import Report, answer, bare_environment, together
from .tally import Tally

ACTORS: Final = 2_000
IN_FLIGHT: Final = 256
MESSAGES: Final = 20_000
ROUNDS: Final = 5
HOPS: Final = 1_000
CHAINS: Final = 5

Ask = Callable[[str], Awaitable[int]]


@final
class ByHand:
    """The same counting, written for this benchmark alone."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self._environment = environment
        self._tallies = {f"tally {number}": Tally() for number in range(ACTORS)}
        self._dirty: dict[bytes, bytes] = {}
        self._waiting: list[tuple[asyncio.Future[int], int]] = []
        self._work = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)

    async def __aenter__(self) -> Self:
        self._committer = asyncio.create_task(self._commits())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._committer.cancel()
        self._thread.shutdown()

    async def ask(self, key: str) -> int:
        """Count; the answer is durable."""
        tally = self._tallies[key]
        count = tally.add(1)
        self._dirty[key.encode()] = pickle.dumps(tally, 5)
        answered: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((answered, count))
        self._work.set()
        return await answered

    async def _commits(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            dirty, self._dirty = self._dirty, {}
            waiting, self._waiting = self._waiting, []
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, dirty)
            for answered, count in waiting:
                answered.set_result(count)

    def _commit(self, dirty: dict[bytes, bytes]) -> None:
        with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
            cursor.putmulti(sorted(dirty.items()))


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    with bare_environment(directory / "by-hand") as environment:
        async with ByHand(environment) as by_hand, Runtime(f"lmdb:{directory / 'actors'}", actors=[Tally]) as runtime:
            await messages(report, by_hand.ask, asks_of(runtime))
    await chains(report, f"lmdb:{directory / 'chains'}")


def asks_of(runtime: Runtime) -> Ask:
    """Asking an actor by its key."""
    refs = {key: runtime.ref(Tally, key) for key in (f"tally {number}" for number in range(ACTORS))}
    return lambda key: refs[key].ask(Tally.add, 1)


async def messages(report: Report, by_hand: Ask, hosted: Ask) -> None:
    """Both ways in turn."""
    rates: dict[Ask, list[float]] = {by_hand: [], hosted: []}
    for ask, measured in rates.items():
        await rate(ask)  # not counted: the actors come into memory
        measured.clear()
    for _ in range(ROUNDS):
        for ask, measured in rates.items():
            measured.append(await rate(ask))
    base, reached = (statistics.median(measured) for measured in rates.values())
    report.add(f"by hand, {ACTORS:,} actors, {IN_FLIGHT} in flight", base, "messages/s")
    report.add("asks of actors", reached, "messages/s")
    report.add("asks of actors / by hand", reached / base, "", at_least=0.25)


async def rate(ask: Ask) -> float:
    """Messages per second, each asked when the task's last one was answered."""
    numbers = random.Random(4711)
    keys = [f"tally {numbers.randrange(ACTORS)}" for _ in range(MESSAGES)]
    begin = time.perf_counter()
    await together(IN_FLIGHT, map(ask, keys))
    return MESSAGES / (time.perf_counter() - begin)


async def chains(report: Report, url: str) -> None:
    """One message that is passed on, each to the next actor, until everything is durable."""
    commits: list[int] = []
    elapsed: list[float] = []
    async with Runtime(url, actors=[Tally]) as runtime:
        for _ in range(CHAINS):
            before, begin = await batches_of(url), time.perf_counter()
            await runtime.ref(Tally, "first").send_event(Tally.hop, HOPS)
            await runtime.settled()
            elapsed.append(time.perf_counter() - begin)
            commits.append(await batches_of(url) - before)
    report.add(f"a chain of {HOPS:,} hops", statistics.median(commits), "commits", at_most=10)
    report.add("a hop", statistics.median(elapsed) / HOPS * 1e6, "µs")


async def batches_of(url: str) -> int:
    """The number of the host's last durable batch, as any process may read it."""
    store = open_store(url)
    try:
        (marker,) = await store.read([marker_key(0)])
    finally:
        await store.close()
    assert marker is not None
    _, number = unpack(marker)
    assert isinstance(number, int)
    return number


if __name__ == "__main__":
    answer(__doc__, measure)
