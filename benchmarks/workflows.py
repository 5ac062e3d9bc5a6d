"""What does a durable step cost? Beside a bare commit of one row, and beside a program that was written by hand for nothing else.

A workflow awaits steps that do nothing, one after the other. Each step costs one commit: that of the turn which takes the outcome of the
one before and asks for it. Baseline `bare`: py-lmdb alone, one put and one synchronous commit. Then many workflows at once, beside the
messages that `benchmarks/turns.py` counts by hand. Last, the turn of an actor of which something waits (so that its message is logged, too)
beside one of an idle actor.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Final

import lmdb
from perdure.actors import Runtime, durable_actor, on_event, signal, step, wait_for_signal, workflow

from .measure import Report, answer, bare_environment, durations_of, together
from .tally import Tally
from .turns import ByHand, rate

STEPS: Final = 200  # of the one workflow, in a round
ROUNDS: Final = 7
WORKFLOWS: Final = 200
STEPS_EACH: Final = 10
AT_ONCE: Final = 64
ASKS: Final = 5_000
IN_FLIGHT: Final = 256
TALLIES: Final = 500

TIMES: Final[list[float]] = []


@step
async def note_the_time(number: int) -> int:
    """Nothing but the time at which it runs."""
    TIMES.append(time.perf_counter())
    return number


@step
async def nothing(number: int) -> int:
    """Nothing."""
    return number


@durable_actor
class Sequence:
    """Awaits steps, one after the other."""

    @workflow
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total += await note_the_time(number)
        return total


@durable_actor
class Short:
    """The same, for many at once."""

    @workflow
    async def run(self, count: int) -> int:
        total = 0
        for number in range(count):
            total += await nothing(number)
        return total


@durable_actor
class WaitingTally:
    """Counts as `Tally` does, while its workflow waits."""

    done = signal()

    def __init__(self) -> None:
        self.count = 0
        self.name = "a tally of some hundred bytes, as an actor of a small program may have"

    @workflow
    async def run(self) -> int:
        await wait_for_signal(WaitingTally.done)
        return self.count

    @on_event
    def add(self, by: int) -> int:
        self.count += by
        return self.count


async def measure(report: Report, directory: Path) -> None:
    """All figures of this benchmark."""
    with bare_environment(directory / "bare") as bare:
        await one_at_a_time(report, bare, f"lmdb:{directory / 'sequence'}")
        await many_at_once(report, bare, f"lmdb:{directory / 'short'}")
    await waiting_turns(report, f"lmdb:{directory / 'turns'}")


async def one_at_a_time(report: Report, bare: lmdb.Environment, url: str) -> None:
    """Steps and bare commits, turn about."""

    def put() -> None:
        with bare.begin(write=True) as transaction:
            transaction.put(b"row", bytes(200))

    commits: list[float] = []
    steps: list[float] = []
    async with Runtime(url, actors=[Sequence]) as runtime:
        for number in range(ROUNDS):
            commits += durations_of(STEPS, put)
            TIMES.clear()
            ref = await runtime.start(Sequence.run, f"sequence {number}", STEPS)
            await ref.result()
            steps += [after - before for before, after in pairwise(TIMES)]
    base, reached = statistics.median(commits), statistics.median(steps)
    report.add("bare: one put, one commit, p50", base * 1e6, "µs")
    report.add("a step, p50", reached * 1e6, "µs")
    report.add("a step / bare", reached / base, "", at_most=2.0)


async def many_at_once(report: Report, bare: lmdb.Environment, url: str) -> None:
    """Workflows and messages by hand, turn about."""
    by_hand_rates: list[float] = []
    step_rates: list[float] = []
    async with ByHand(bare) as by_hand, Runtime(url, actors=[Short]) as runtime:
        for number in range(ROUNDS):
            by_hand_rates.append(await rate(by_hand.ask))
            begin = time.perf_counter()
            await together(AT_ONCE, (_run(runtime, f"{number}-{key}") for key in range(WORKFLOWS)))
            step_rates.append(WORKFLOWS * STEPS_EACH / (time.perf_counter() - begin))
    base, reached = statistics.median(by_hand_rates), statistics.median(step_rates)
    report.add("by hand", base, "messages/s")
    report.add(f"{WORKFLOWS} workflows of {STEPS_EACH} steps, {AT_ONCE} at once", reached, "steps/s", at_least=5_000)
    report.add("steps / by hand", reached / base, "", at_least=0.06)


async def _run(runtime: Runtime, key: str) -> None:
    ref = await runtime.start(Short.run, key, STEPS_EACH)
    await ref.result()


async def waiting_turns(report: Report, url: str) -> None:
    """Asks of idle actors and of waiting ones, turn about."""
    async with Runtime(url, actors=[Tally, WaitingTally]) as runtime:
        idle = [runtime.ref(Tally, f"{number}") for number in range(TALLIES)]
        waiting = [await runtime.start(WaitingTally.run, f"{number}") for number in range(TALLIES)]
        asks: dict[str, Callable[[int], Awaitable[int]]] = {
            "idle": lambda number: idle[number % TALLIES].ask(Tally.add, 1),
            "waiting": lambda number: waiting[number % TALLIES].ask(WaitingTally.add, 1),
        }
        spent: dict[str, list[float]] = {name: [] for name in asks}
        for _ in range(ROUNDS):
            for name, ask in asks.items():
                begin = time.perf_counter()
                await together(IN_FLIGHT, map(ask, range(ASKS)))
                spent[name].append((time.perf_counter() - begin) / ASKS)
    base, reached = (statistics.median(times) for times in spent.values())
    report.add("a turn of an idle actor, asked and answered", base * 1e6, "µs")
    report.add("a turn of a waiting actor / an idle one", reached / base, "", at_most=2.0)


if __name__ == "__main__":
    answer(__doc__, measure)
