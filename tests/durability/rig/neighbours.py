"""What poison costs those that live beside it: a load alone, and the same load while messages of every poisonous kind keep arriving.

    python -m tests.durability.rig.neighbours URL [--rounds N] [--seconds S] [--rate R]

Each round measures both, one right after the other, in asks answered to each second of the process's own time: what else the machine does
counts on neither side. Every other round begins with the poison, so that a machine that grows slower, or faster, favours neither. A rate of
0 measures the load against itself, and so what the instrument is worth.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import time
from collections.abc import Iterator
from itertools import cycle
from typing import Final, NamedTuple, final

from perdure.actors import DeadLetterInfo, Runtime

from .poisons import POISONS, Neighbour, Victim

ASKING: Final = 64  # callers, each of an actor of its own
ENOUGH: Final = 60.0  # seconds in which all poison must have been put aside
MARGIN: Final = 0.2  # seconds before a phase is measured


@final
class Comparison(NamedTuple):
    """Asks answered to a second of the process's time, for each round alone and poisoned; the same to a second of everybody's time.

    `sent`: messages of poison; `letters`: (kind, failed, interrupted) of what became of them.
    """

    alone: list[float]
    poisoned: list[float]
    alone_by_wall: list[float]
    poisoned_by_wall: list[float]
    sent: int
    letters: list[tuple[str, int, int]]


@final
class Neighbourhood:
    """Callers who ask as fast as they are answered."""

    def __init__(self, runtime: Runtime) -> None:
        self.answered = 0
        self.sent = 0
        self.poisoned = False
        self._runtime = runtime
        self._kinds: Iterator[str] = cycle(POISONS)

    async def ask(self, number: int) -> None:
        """Ask one actor, for ever: none of its answers may be missing, or come twice."""
        neighbour = self._runtime.ref(Neighbour, f"neighbour-{number}")
        expected = 0
        while True:
            expected += 1
            assert await neighbour.ask(Neighbour.add) == expected
            self.answered += 1

    async def poison(self, rate: float) -> None:
        """Send so many messages of poison a second, each to an actor of its own kind, as long as the place is poisoned."""
        self.poisoned = True
        while self.poisoned:
            kind = next(self._kinds)
            await self._runtime.ref(Victim, kind).send_event(Victim.swallow, kind)
            self.sent += 1
            await asyncio.sleep(1 / rate)

    async def measure(self, seconds: float) -> tuple[float, float]:
        """Asks answered to a second of this process's time, and to one of everybody's."""
        await asyncio.sleep(MARGIN)
        answered, wall, own = self.answered, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        answered = self.answered - answered
        return answered / (time.process_time() - own), answered / (time.perf_counter() - wall)


async def compare(url: str, rounds: int, seconds: float, rate: float) -> Comparison:
    """Both phases, so many times."""
    figures: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    async with Runtime(url, [Neighbour, Victim]) as runtime, asyncio.TaskGroup() as tasks:
        place = Neighbourhood(runtime)
        asking = [tasks.create_task(place.ask(number)) for number in range(ASKING)]
        for number in range(rounds):
            for poisoned in (False, True) if number % 2 else (True, False):
                poisoning = tasks.create_task(place.poison(rate)) if poisoned and rate else None
                figures[poisoned].append(await place.measure(seconds))
                place.poisoned = False
                if poisoning is not None:
                    await poisoning
                    await buried(runtime, place.sent)
        letters = await buried(runtime, place.sent)
        for task in asking:
            task.cancel()
    (alone, alone_by_wall), (beside, beside_by_wall) = (map(list, zip(*figures[poisoned], strict=True)) for poisoned in (False, True))
    told = [(letter.actor.key, letter.failed, letter.interrupted) for letter in letters]
    return Comparison(alone, beside, alone_by_wall, beside_by_wall, place.sent, told)


async def buried(runtime: Runtime, count: int) -> list[DeadLetterInfo]:
    """The dead letters, once there are so many."""
    async with asyncio.timeout(ENOUGH):
        while True:
            letters = [letter async for letter in runtime.dead_letters()]
            if len(letters) >= count:
                return letters
            await asyncio.sleep(0.05)


def main() -> None:
    """Compare as the command line says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=10.0)
    options = parser.parse_args()
    logging.basicConfig(filename=os.devnull)  # what is written of every attempt is part of its cost
    print(json.dumps(asyncio.run(compare(options.url, options.rounds, options.seconds, options.rate))))


if __name__ == "__main__":
    main()
