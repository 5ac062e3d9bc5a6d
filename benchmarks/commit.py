"""What does a durable answer cost, beside the disk's own price of one durable write? In time, at its 50th percentile.

Baseline `bare`: one put of 200 bytes and a synchronous commit by py-lmdb on the loop's own thread, in an environment with the options of
a store, beside it on the disk. `store`: a batch of one put through `Store.commit`, thus through the writer's thread. `ask`: a sequential
ask of one actor. The three take turns in rounds of `ROUND`, and the medians over all rounds are compared.

Beside a busy loop, transactions of `PUTS` puts are committed by a plain thread (`transaction.put`, one by one) and by the store.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import lmdb
from perdure.actors import Runtime
from perdure.storage import Batch, Fence, Store, open_store, pack

from .measure import Report, answer, bare_environment, durations, durations_of, percentile
from .tally import Tally

ROUNDS: Final = 24
ROUND: Final = 50
VALUE: Final = bytes(200)
PUTS: Final = 90
BUSY_FOR: Final = 2.0  # seconds


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    with bare_environment(directory / "bare") as environment:
        store = open_store(f"lmdb:{directory / 'store'}")
        fence = await store.own(0)
        await one_at_a_time(report, directory, environment, store, fence)
        await beside_a_busy_loop(report, environment, store, fence)
        await store.close()


async def one_at_a_time(report: Report, directory: Path, environment: lmdb.Environment, store: Store, fence: Fence) -> None:
    """One durable write after the other."""
    bare: list[float] = []
    stored: list[float] = []
    asked: list[float] = []
    async with Runtime(f"lmdb:{directory / 'actors'}", actors=[Tally]) as runtime:
        tally = runtime.ref(Tally, "one")
        for _ in range(ROUNDS):
            bare += durations_of(ROUND, partial(put_bare, environment))
            stored += await durations(ROUND, lambda: store.commit(one_put(), fence))
            asked += await durations(ROUND, lambda: tally.ask(Tally.add, 1))
    base = statistics.median(bare)
    report.add("bare commit, p50", base * 1e6, "µs")
    report.add("bare commit, p99", percentile(bare, 99) * 1e6, "µs")
    report.add("store commit, p50 / bare", statistics.median(stored) / base, "")
    report.add("ask, p50", statistics.median(asked) * 1e6, "µs")
    report.add("ask, p99", percentile(asked, 99) * 1e6, "µs")
    report.add("ask, p50 / bare", statistics.median(asked) / base, "", at_most=1.6)


def put_bare(environment: lmdb.Environment) -> None:
    """One put and its commit."""
    with environment.begin(write=True) as transaction:
        transaction.put(b"\1key", VALUE)


def one_put() -> Batch:
    """The same as a batch."""
    batch = Batch()
    batch.put(pack((0, "key")), VALUE)
    return batch


async def beside_a_busy_loop(report: Report, environment: lmdb.Environment, store: Store, fence: Fence) -> None:
    """Transactions of many puts, while the loop has always something to do."""
    with ThreadPoolExecutor(1) as thread:
        loop = asyncio.get_running_loop()
        plain = await commits_while_busy(lambda: loop.run_in_executor(thread, put_one_by_one, environment))
    stored = await commits_while_busy(lambda: store.commit(many_puts(), fence))
    report.add(f"beside a busy loop: {PUTS} puts by a plain thread", plain, "commits/s")
    report.add(f"beside a busy loop: {PUTS} puts by the store", stored, "commits/s")


def put_one_by_one(environment: lmdb.Environment) -> None:
    """Many puts and their commit, as a thread would do it that knows nothing of the GIL."""
    with environment.begin(write=True) as transaction:
        for number in range(PUTS):
            transaction.put(b"\1%d" % number, VALUE)


def many_puts() -> Batch:
    """The same as a batch."""
    batch = Batch()
    for number in range(PUTS):
        batch.put(pack((0, number)), VALUE)
    return batch


async def commits_while_busy(commit: Callable[[], Awaitable[object]]) -> float:
    """Commits per second beside a loop that computes in slices of half a millisecond, and never waits."""
    committed, end = 0, time.perf_counter() + BUSY_FOR
    under_way = asyncio.ensure_future(commit())
    while time.perf_counter() < end:
        compute(0.0005)
        await asyncio.sleep(0)
        if under_way.done():
            committed += 1
            under_way = asyncio.ensure_future(commit())
    await under_way
    return committed / BUSY_FOR


def compute(seconds: float) -> None:
    """Keep the GIL."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


if __name__ == "__main__":
    answer(__doc__, measure)
