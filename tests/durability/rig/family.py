"""A tree of children that fail as often as a seed says, on a host that is killed again and again.

    python -m tests.durability.rig.family PLACE --seed N --kills N …

Each life of a child writes itself down in a file outside, by a step: so what the supervisors have counted can be compared with what has
happened. Prints a tally as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, final

from perdure.actors import (
    ActorInfo,
    OneForOne,
    Runtime,
    StepFailed,
    current_actor,
    durable_actor,
    send_signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors import signal as declared

from .story import fork, wait

FAILURES: Final = (0, 1, 1, 2, 3, 5)  # of a child; the seed draws one of them for each
SUPERVISORS: Final = 10
REST_WITHIN: Final = 60.0  # seconds, of the last life
AT_ONCE: Final = 100  # signals
PATIENCE: Final = 3.0  # seconds, of a life until it is killed
LINE: Final = 39  # bytes of the book, about


@final
class Plot(NamedTuple):
    """How a story goes: how many children there are, within how many seconds each life of them fails, and how often the host is killed."""

    place: Path
    seed: int = 0
    kills: int = 5
    children: int = 1_000
    spread: float = 1.0


@final
class Tally(NamedTuple):
    """What a story came to: failures and restarts, as they happened and as the supervisors counted; `tried` are the steps that ran."""

    failures: int
    restarts: int
    tried: int
    recovery: float
    violations: list[str]


@final
class Book:
    """Which lives of which child have begun: a line for each time that its step ran."""

    def __init__(self, path: Path) -> None:
        self._file: Final = path.open("a+")
        self.lives: Final[dict[str, list[str]]] = defaultdict(list)
        self.tried = 0
        self._file.seek(0)
        for line in self._file:
            self._enter(*line.split())

    def note(self, child: str, life: str) -> int:
        """Write a life down, however often; returns its number, from 1."""
        self._file.write(f"{child} {life}\n")
        self._file.flush()  # a kill loses nothing that the kernel has
        self._enter(child, life)
        return self.lives[child].index(life) + 1

    def _enter(self, child: str, life: str) -> None:
        self.tried += 1
        if life not in self.lives[child]:
            self.lives[child].append(life)


def failures_of(seed: int, child: str) -> int:
    """How often a child is to fail."""
    return random.Random(f"{seed}/{child}").choice(FAILURES)


@step
async def write_down(child: str, life: str) -> int:
    """Write a life down; returns its number."""
    number: int = step_info().resources["book"].note(child, life)
    await asyncio.sleep(0.02)  # time to be killed in, between what is done and its record
    return number


@durable_actor
class Member:
    """Fails, some time in each of its first lives, and then waits for its leave."""

    leave = declared()

    @workflow
    async def run(self, seed: int, spread: float) -> str:
        key = current_actor().key
        await asyncio.sleep(current_actor().random.uniform(0, spread))
        number = await self._number(key, current_actor().uuid4().hex)
        if number <= failures_of(seed, key):
            raise ValueError(f"life {number}")
        await wait_for_signal(Member.leave)
        return key

    async def _number(self, key: str, life: str) -> int:
        while True:
            try:
                return await write_down(key, life)
            except StepFailed:  # its host died of every attempt
                continue


@durable_actor(supervise=OneForOne(max_restarts=1_000_000, within=timedelta(days=1)))
class Elder:
    """Has children of its own."""

    @workflow
    async def run(self, children: int, seed: int, spread: float) -> list[str]:
        born = [spawn(Member.run, f"{current_actor().key}.{number}", seed, spread) for number in range(children)]
        return [await child.result() for child in born]


@durable_actor
class Ancestor:
    """Has those who have the children."""

    @workflow
    async def run(self, children: int, seed: int, spread: float) -> list[str]:
        elders = [spawn(Elder.run, f"e{number}", children // SUPERVISORS, seed, spread) for number in range(SUPERVISORS)]
        return [key for elder in elders for key in await elder.result()]


def hosted(plot: Plot, book: Book, max_active: int = 10_000) -> Runtime:
    """A host of the tree."""
    types = [Ancestor, Elder, Member]
    return Runtime(f"lmdb:{plot.place}/store", types, resources={"book": book}, max_active=max_active)


async def live(plot: Plot, max_active: int) -> None:
    """A life of the host, until it is killed."""
    async with hosted(plot, Book(plot.place / "book"), max_active) as host:
        await host.start(Ancestor.run, "ancestor", plot.children, plot.seed, plot.spread)
        await asyncio.Event().wait()


async def rest(plot: Plot) -> Tally:
    """The last life: let all come to rest, compare, give leave, and wait for the end."""
    begun, book = time.perf_counter(), Book(plot.place / "book")
    async with hosted(plot, book) as host:
        ancestor = await host.start(Ancestor.run, "ancestor", plot.children, plot.seed, plot.spread)
        recovery = time.perf_counter() - begun
        await at_rest(host, plot)
        counted = {child.id.key: child.restarts for elder in await listed(host.actors(Elder)) for child in elder.children}
        wrong = [*broken(plot, counted, book), *[f"a dead letter: {letter}" async for letter in host.dead_letters()]]
        if not wrong:
            wrong = await dismissed(host, ancestor.result(), counted)
        return Tally(sum(map(len, book.lives.values())) - len(book.lives), sum(counted.values()), book.tried, recovery, wrong)


async def at_rest(host: Runtime, plot: Plot) -> None:
    """Return once all children wait for their leave, or have had time enough."""
    end = time.monotonic() + REST_WITHIN
    while True:
        if len(await listed(host.actors(Member, waiting_for="leave"))) == plot.children or time.monotonic() > end:
            return
        await asyncio.sleep(0.1)


async def dismissed(host: Runtime, result: Any, counted: dict[str, int]) -> list[str]:
    """Give all children their leave; returns what is odd about the end."""
    keys = list(counted)
    for start in range(0, len(keys), AT_ONCE):
        await asyncio.gather(*(send_signal(host.ref(Member, key), Member.leave) for key in keys[start : start + AT_ONCE]))
    found = Counter(await asyncio.wait_for(result, REST_WITHIN))
    await host.settled()
    ended = Counter([info.status async for info in host.actors()])
    wrong = [] if found == Counter(keys) else [f"the ancestor was told of {len(found)} children, {found.total()} times"]
    return wrong if ended == {"completed": 1 + SUPERVISORS + len(keys)} else [*wrong, f"in the end they are {dict(ended)}"]


def broken(plot: Plot, counted: dict[str, int], book: Book) -> list[str]:
    """What does not fit: each child must be there, have lived once more than it was to fail, and been begun again as often."""
    keys = [f"e{elder}.{number}" for elder in range(SUPERVISORS) for number in range(plot.children // SUPERVISORS)]
    wrong = [] if counted.keys() == set(keys) else [f"{len(counted)} children are known, and {len(keys)} were spawned"]
    for key in keys:
        failures, restarts, lives = failures_of(plot.seed, key), counted.get(key), len(book.lives[key])
        if (restarts, lives) != (failures, failures + 1):
            wrong.append(f"{key} was to fail {failures} times, lived {lives} times, and was begun again {restarts} times")
    return wrong


async def listed(actors: AsyncIterator[ActorInfo]) -> list[ActorInfo]:
    """All of them."""
    return [info async for info in actors]


def tell(plot: Plot) -> Tally:
    """Live and be killed, and then live in peace."""
    logging.disable()
    rng = random.Random(plot.seed)
    for number in range(plot.kills):
        max_active = rng.choice([10_000, 10_000, 200, 0])
        process = fork(lambda working, max_active=max_active: asyncio.run(live(plot, max_active)))  # type: ignore[misc]
        if rng.random() < 2 / 3:
            await_lives(plot, rng.uniform(0, 4 * plot.children / plot.kills))
        time.sleep(rng.uniform(0, 0.3))
        os.kill(process, signal.SIGKILL)
        if (status := wait(process)) != -signal.SIGKILL:
            return Tally(0, 0, 0, 0.0, [f"life {number} of the host ended with status {status}"])
    return asyncio.run(rest(plot))


def await_lives(plot: Plot, count: float) -> None:
    """Return once so many more lives are written down, or after a while."""
    before, end = written(plot), time.monotonic() + PATIENCE
    while written(plot) < before + count and time.monotonic() < end:
        time.sleep(0.001)


def written(plot: Plot) -> int:
    """How many lives are written down."""
    book = plot.place / "book"
    return book.stat().st_size // LINE if book.exists() else 0


def main() -> None:
    """Tell the story of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    for name, value in Plot._field_defaults.items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    print(json.dumps(tell(Plot(**vars(parser.parse_args())))))


if __name__ == "__main__":
    main()
