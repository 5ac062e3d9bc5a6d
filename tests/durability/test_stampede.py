"""Thousands of actors whose work fell due while no host ran come into memory a few at a time, and others are answered meanwhile.

    python -m tests.durability.test_stampede URL KIND COUNT LATER

hosts so many actors, which set a timer (KIND `timers`) or fail at their message, and try again later (`mailboxes`); hosted again with
LATER, in seconds, it waits until each has rung, and tells, as JSON, what that took.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple, final

import pytest
from perdure.actors import Retry, Runtime, current_actor, durable_actor, on_event, on_timer, query, set_timer
from perdure.actors._clock import Alarm, SystemClock

from .rig.flood import Gauge

HOUR: Final = timedelta(hours=1)
IN_MEMORY: Final = 1_000
AT_ONCE: Final = 1_000  # sends on their way
PATIENCE: Final = 120.0  # seconds


@final
class LaterClock:
    """The machine's, ahead by some seconds."""

    def __init__(self, later: float) -> None:
        self._clock = SystemClock()
        self._later = later

    def now(self) -> float:
        return self._clock.now() + self._later

    def call_at(self, due: float, callback: Callable[[], None]) -> Alarm:
        return self._clock.call_at(due - self._later, callback)


@durable_actor(retry=Retry(initial=HOUR, maximum=HOUR))
class Bell:
    """Rings an hour later, by a timer or because it failed before."""

    rung: int = 0

    @on_event
    def timers(self) -> None:
        set_timer(Bell.ring, after=HOUR)

    @on_timer
    def ring(self) -> None:
        self.rung += 1

    @on_event
    def mailboxes(self) -> None:
        if not current_actor().resources["later"]:
            raise ConnectionError("not yet")
        self.rung += 1

    @query
    def how_often(self) -> int:
        return self.rung


@durable_actor
class Bystander:
    """Has nothing to do with it."""

    asked: int = 0

    @on_event
    def ask(self) -> int:
        self.asked += 1
        return self.asked


@final
class Told(NamedTuple):
    """What it took. `peak` in MiB; `slowest` answer to a bystander, in seconds; `rung`: how often each."""

    peak: int
    active: int
    ready: int
    slowest: float
    seconds: float
    rung: list[int]


async def ask_bystanders(runtime: Runtime, slowest: list[float]) -> None:
    """Ask one after the other, each new to memory, until cancelled."""
    for number in range(1_000_000):
        begun = time.perf_counter()
        await runtime.ref(Bystander, f"b-{number}").ask(Bystander.ask)
        slowest.append(time.perf_counter() - begun)
        await asyncio.sleep(0.002)


async def watch(runtime: Runtime, counts: list[tuple[int, int]]) -> None:
    """See how many are in memory, and how many stand in the queue, until cancelled."""
    while True:
        counts.append(runtime.statistics()[:2])
        await asyncio.sleep(0.002)


async def live(url: str, kind: str, count: int, later: float) -> Told:
    """One life of a host."""
    gauge, begun = Gauge(), time.time()
    slowest, counts = [0.0], [(0, 0)]
    hosted = {"resources": {"later": later}, "clock": LaterClock(later), "max_active": IN_MEMORY}
    async with Runtime(url, [Bell, Bystander], **hosted) as runtime:  # type: ignore[arg-type]
        bells = [runtime.ref(Bell, f"{number}") for number in range(count)]
        for start in range(0, 0 if later else count, AT_ONCE):
            await asyncio.gather(*(bell.send_event(kind) for bell in bells[start : start + AT_ONCE]))
        tasks = [asyncio.create_task(ask_bystanders(runtime, slowest)), asyncio.create_task(watch(runtime, counts))]
        rung: list[int] = []
        seconds, peak = 0.0, 0
        while later and sum(rung) < count and time.time() < begun + PATIENCE:
            await runtime.settled()
            seconds, peak = time.time() - begun, gauge.read()
            rung = [await bell.query(Bell.how_often) for bell in bells]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not later:
        return Told(0, 0, 0, 0, 0, [])
    return Told(peak, max(each[0] for each in counts), max(each[1] for each in counts), max(slowest), seconds, rung)


@pytest.mark.promise("timers-fire-once-never-early")
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["timers", "mailboxes"])
def test_what_fell_due_while_no_host_ran_does_not_stampede(tmp_path: Path, pytestconfig: pytest.Config, torture: bool, kind: str) -> None:
    count = 100_000 if torture else 10_000
    command = [sys.executable, "-m", __spec__.name, f"lmdb:{tmp_path}/store", kind, str(count)]

    subprocess.run([*command, "0"], cwd=pytestconfig.rootpath, check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run([*command, "7200"], cwd=pytestconfig.rootpath, check=True, stdout=subprocess.PIPE).stdout
    told = Told(*json.loads(said))

    print(f"{count} {kind}: {told._replace(rung=[])}")
    assert told.rung == [1] * count
    assert told.active < 2 * IN_MEMORY
    assert told.ready < 1_000
    assert told.peak < 100 + count // 1_000
    assert told.slowest < 2


if __name__ == "__main__":
    logging.disable()
    _, url, kind, count, later = sys.argv
    print(json.dumps(asyncio.run(live(url, kind, int(count), float(later)))))
