"""Timers under clocks that race and leap, and thousands of them over a kill: each fires once, and none early.

    python -m tests.durability.test_timers PLACE COUNT BEGIN SPREAD

is one life of a host with so many timers, due evenly from BEGIN on (seconds since the epoch), within SPREAD seconds. The first life sets
them and is killed; the next one waits for all of them and tells, as JSON, what came of each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple, final

import pytest
from perdure.actors import Runtime, current_actor, durable_actor, on_event, on_timer, query, set_timer
from perdure.actors._clock import Alarm, SystemClock

pytestmark = pytest.mark.promise("timers-fire-once-never-early")

MONTH: Final = 30 * 86_400.0
AT_ONCE: Final = 500  # asks on their way
PATIENCE: Final = 20.0  # seconds after the last is due


@durable_actor
class Sleeper:
    """Has one timer, and notes when it fires by the host's clock."""

    def __init__(self) -> None:
        self.due = 0.0
        self.rung: list[float] = []

    @on_event
    def set(self, due: float) -> None:
        if not self.due:
            self.due = due
            set_timer(Sleeper.ring, at=datetime.fromtimestamp(due, UTC))

    @on_timer
    def ring(self) -> None:
        self.rung.append(current_actor().resources["clock"].now())

    @query
    def story(self) -> tuple[float, list[float]]:
        return self.due, self.rung


# --- clocks ---


@final
class RacingClock:
    """Runs a hundred times as fast as the machine's, and counts what is asked of it."""

    def __init__(self, start: float) -> None:
        self._offset = start - 100 * time.monotonic()
        self.calls = 0

    def now(self) -> float:
        return self._offset + 100 * time.monotonic()

    def call_at(self, due: float, callback: Callable[[], None]) -> Alarm:
        self.calls += 1
        return asyncio.get_running_loop().call_later(max(0.0, (due - self.now()) / 100), callback)


@pytest.mark.reliability(14)
@pytest.mark.parametrize("month", [MONTH, -MONTH])
def test_a_machine_clock_that_is_set_moves_no_timer(monkeypatch: pytest.MonkeyPatch, month: float) -> None:
    before, clock = time.time(), SystemClock()

    monkeypatch.setattr(time, "time", lambda: before + month)

    assert 0 <= clock.now() - before < 60


async def host(place: Path, clock: RacingClock, begin: float, until: float) -> list[tuple[float, list[float]]]:
    """Have timers set, if they are not, and host them until the clock says so; returns when each was due and when it has fired."""
    async with Runtime(f"lmdb:{place}/store", [Sleeper], clock=clock, resources={"clock": clock}) as runtime:
        sleepers = [runtime.ref(Sleeper, f"s-{number}") for number in range(100)]
        for number, sleeper in enumerate(sleepers):
            await sleeper.ask(Sleeper.set, begin + number / 2)
        await asyncio.sleep(max(0.0, (until - clock.now()) / 100))
        return [await sleeper.query(Sleeper.story) for sleeper in sleepers]


@pytest.mark.reliability(14)
@pytest.mark.anyio
@pytest.mark.parametrize("leap", [MONTH, -MONTH])
async def test_clocks_that_race_and_leap_fire_each_timer_once(tmp_path: Path, leap: float) -> None:
    clock, other = RacingClock(time.time()), RacingClock(time.time() + leap)
    begin = clock.now() + 100

    await host(tmp_path, clock, begin, until=0)
    await host(tmp_path, other, begin, until=0)
    stories = await host(tmp_path, clock, begin, until=begin + 60)

    assert [len(rung) for _, rung in stories] == [1] * 100
    assert all(rung[0] >= due for due, rung in stories)
    assert clock.calls + other.calls < 1_000


# --- kills ---


@final
class Told(NamedTuple):
    """What a life has seen: when it could first be asked, and of each timer when it was due and when it fired."""

    recovered: float
    timers: list[tuple[float, list[float]]]


async def live(place: str, count: int, begin: float, spread: float) -> Told:
    """One life."""
    async with Runtime(f"lmdb:{place}/store", [Sleeper], resources={"clock": SystemClock()}) as runtime:
        refs = [runtime.ref(Sleeper, f"s-{number}") for number in range(count)]
        await refs[0].ask(Sleeper.set, begin)
        recovered = time.time()
        for start in range(0, count, AT_ONCE):
            asked = enumerate(refs[start : start + AT_ONCE], start)
            await asyncio.gather(*(ref.ask(Sleeper.set, begin + number * spread / count) for number, ref in asked))
        await asyncio.sleep(max(0.0, begin + spread - time.time()))
        end = time.time() + PATIENCE
        while True:
            stories = [await ref.query(Sleeper.story) for ref in refs]
            if all(rung for _, rung in stories) or time.time() > end:
                return Told(recovered, stories)


def life(place: Path, *plot: object) -> subprocess.Popen[str]:
    """A life in a process of its own."""
    command = [sys.executable, "-m", "tests.durability.test_timers", str(place), *map(str, plot)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.reliability(15)
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thousands_of_timers_fire_once_each_over_a_kill(tmp_path: Path, torture: bool) -> None:
    count, spread = (100_000, 60.0) if torture else (10_000, 6.0)
    begin = time.time() + count / 1_500

    first = life(tmp_path, count, begin, spread)
    time.sleep(begin + spread / 2 - time.time())
    first.kill()
    first.communicate()
    said, _ = life(tmp_path, count, begin, spread).communicate()
    told = Told(*json.loads(said.splitlines()[-1]))

    late = sorted(rung[0] - due for due, rung in told.timers if rung and due > told.recovered)
    print(f"{count} timers, {len(late)} due after the recovery: p99 {late[int(len(late) * 0.99)]:.3f} s late, at most {late[-1]:.3f} s")
    assert [len(rung) for _, rung in told.timers] == [1] * count
    assert late[0] >= 0
    assert late[int(len(late) * 0.99)] < 1


if __name__ == "__main__":
    logging.disable()
    _, place, count, begin, spread = sys.argv
    print(json.dumps(asyncio.run(live(place, int(count), float(begin), float(spread)))))
