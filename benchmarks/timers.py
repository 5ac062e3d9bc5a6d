"""What do actors cost that sleep? In memory, and in time: until the first one wakes after a crash, and how late many wake at once.

Sleepers are actors whose workflow awaits `asyncio.sleep`. Memory is the growth of `RssAnon` by many of them, after the first, in a process
of its own. Baseline `asyncio`: as many tasks that sleep on a plain loop. `active` sleepers are in memory; `passive` ones have been evicted,
since their host keeps only `FIRST`: they are to leave less than a hundredth of what they took, pages of what was garbage for a while.

The process that made `STORED` passive ones makes `DUE` more that wake soon, and is killed with SIGKILL. When those are due, another process
measures from entering its `Runtime` to the first line that one of them reaches after its sleep. In that host, where the others sleep on,
`CROWD` more are due within `SPREAD` seconds: on waking, each notes in a list of its process how late it is by `time.time()`. Once they are
in memory, and once each has to be brought back by replay.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from perdure.actors import Runtime, durable_actor, workflow

from .measure import Report, answer, percentile, subprocess_answer, together
from .rest import own_memory

FIRST: Final = 5_000
WARM: Final = 20_000  # made before passive ones are counted
MANY: Final = 20_000
STORED: Final = 100_000
DUE: Final = 100
CROWD: Final = 2_000
SPREAD: Final = 2.0  # seconds
AHEAD: Final = 4.0  # seconds to start a crowd in
GRACE: Final = 4.0  # seconds after which whoever still sleeps is not late, but lost
IN_FLIGHT: Final = 256
MONTH: Final = 30 * 86400.0  # seconds

Measured = dict[str, float]

LATENESS: Final[list[float]] = []  # seconds, of each sleeper that woke in this process
WOKEN: Final[list[float]] = []  # when they did


@durable_actor
class Sleeper:
    """Sleeps until a time in seconds since the epoch."""

    @workflow
    async def run(self, until: float) -> None:
        """Sleep, and note how late it is."""
        await asyncio.sleep(until - asyncio.get_running_loop().time())
        WOKEN.append(time.perf_counter())
        LATENESS.append(time.time() - until)


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    plain = await in_subprocess("plain", directory)
    active = await in_subprocess("active", directory)
    report.add("asyncio: a task that sleeps", plain["memory"], "bytes")
    report.add("an active sleeper", active["memory"], "bytes/actor", at_most=6 * 1024)
    passive = await made_and_killed(directory)
    report.add(f"a passive sleeper, of {STORED:,}", passive["memory"], "bytes/actor", at_most=60)
    report.add("made", STORED / passive["spent"], "sleepers/s")
    await asyncio.sleep(max(0.0, passive["due"] - time.time()))
    woken = await in_subprocess("wake", directory)
    report.add(f"after kill -9: to the first of {DUE} that are due", woken["first"], "s", at_most=2)
    for what in ("active", "passive"):
        report.add(f"{CROWD:,} due within {SPREAD:g} s, {what}: late by p50", woken[f"{what} p50"] * 1e3, "ms")
        report.add(f"{CROWD:,} due within {SPREAD:g} s, {what}: late by p99", woken[f"{what} p99"] * 1e3, "ms", at_most=50)


async def in_subprocess(what: str, directory: Path) -> Measured:
    """What one of `MEASUREMENTS` returns in a process of its own."""
    return await subprocess_answer("benchmarks.timers", what, directory)


async def made_and_killed(directory: Path) -> Measured:
    """What `passive` prints, before it kills itself as its parent would."""
    command = sys.executable, "-m", "benchmarks.timers", "passive", str(directory)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"it was to be killed, and ended with status {process.returncode}")
    found: Measured = json.loads(output)
    return found


async def plain(_: Path) -> Measured:
    """Bytes for each task on asyncio's own loop."""
    tasks = [asyncio.create_task(asyncio.sleep(MONTH)) for _ in range(FIRST)]
    await asyncio.sleep(0)
    before = own_memory()
    tasks += [asyncio.create_task(asyncio.sleep(MONTH)) for _ in range(MANY)]
    await asyncio.sleep(0)
    after = own_memory()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return {"memory": (after - before) / MANY}


async def active(directory: Path) -> Measured:
    """Bytes for each sleeper in memory."""
    async with Runtime(f"lmdb:{directory / 'active'}", actors=[Sleeper], max_active=FIRST + MANY) as runtime:
        return {"memory": await growth(runtime, FIRST, FIRST + MANY)}


async def passive(directory: Path) -> Measured:
    """Bytes for each sleeper that was in memory; then leave some who will be due soon, and die."""
    begin = time.perf_counter()
    async with Runtime(f"lmdb:{directory / 'stored'}", actors=[Sleeper], max_active=FIRST) as runtime:
        memory = await growth(runtime, WARM, STORED)
        spent = time.perf_counter() - begin
        due = time.time() + AHEAD
        await together(IN_FLIGHT, starts(runtime, "due", [due] * DUE))
        print(json.dumps({"memory": memory, "spent": spent, "due": due}), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("not reached")


async def growth(runtime: Runtime, first: int, last: int) -> float:
    """Bytes for each sleeper that is made after the first ones."""
    due = [time.time() + MONTH + number for number in range(last)]
    await together(IN_FLIGHT, starts(runtime, "first", due[:first]))
    await runtime.settled()
    before = own_memory()
    await together(IN_FLIGHT, starts(runtime, "then", due[first:]))
    await runtime.settled()
    return (own_memory() - before) / (last - first)


def starts(runtime: Runtime, name: str, due: list[float]) -> Iterator[Awaitable[object]]:
    """One sleeper for each time."""
    return (runtime.start(Sleeper.run, f"{name} {number}", until) for number, until in enumerate(due))


async def wake(directory: Path) -> Measured:
    """Seconds until the first of those who are due wakes, and how late crowds are."""
    url = f"lmdb:{directory / 'stored'}"
    begin = time.perf_counter()
    async with Runtime(url, actors=[Sleeper]) as runtime:
        await all_awake(DUE, 0.0)
        found = {"first": WOKEN[0] - begin}
        found |= await crowd(runtime, "active")
    async with Runtime(url, actors=[Sleeper], max_active=0) as runtime:
        return found | await crowd(runtime, "passive")


async def crowd(runtime: Runtime, what: str) -> Measured:
    """How late many are that are due one shortly after the other, in seconds."""
    LATENESS.clear()
    first = time.time() + AHEAD
    await together(IN_FLIGHT, starts(runtime, what, [first + SPREAD * number / CROWD for number in range(CROWD)]))
    if time.time() > first:
        raise RuntimeError(f"{CROWD} sleepers were not asleep within {AHEAD} s")
    await all_awake(CROWD, first + SPREAD)
    return {f"{what} p50": percentile(LATENESS, 50), f"{what} p99": percentile(LATENESS, 99)}


async def all_awake(count: int, due: float) -> None:
    """Let so many wake who are due by then. Raises RuntimeError if they do not."""
    await asyncio.sleep(max(0.0, due - time.time()) + GRACE)
    if len(LATENESS) != count:
        raise RuntimeError(f"{len(LATENESS)} of {count} have woken")


MEASUREMENTS: Final[dict[str, Callable[[Path], Awaitable[Measured]]]] = {each.__name__: each for each in (plain, active, passive, wake)}


async def measure_here(what: str, path: str) -> None:
    """Print what one measurement returns, for the process that began this one."""
    print(json.dumps(await MEASUREMENTS[what](Path(path))))


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in MEASUREMENTS:
        asyncio.run(measure_here(*sys.argv[1:]))
    else:
        answer(__doc__, measure)
