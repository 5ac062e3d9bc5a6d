"""One move of every program of the matrix, in a process of its own, which ends by SIGKILL.

    python -m tests.durability.fresh PLACE

A place is a directory with a store for each program, and the book of how far they are. What waits is replayed here, by whatever Python
this is, with whatever hashes it has; then each gets what comes next: its start, something that is sent to it, the time that it waits for.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

import msgspec
from perdure.actors import ActorQuarantined
from perdure.actors.testing import World

from .programs import PROGRAMS
from .script import KEY, Ask, Program
from .stage import Ledger, ending, give, jump, nothing, rest, stage

BOOK: Final = "book.json"
ROOT: Final = Path(__file__).parents[2]


class Page(msgspec.Struct):
    """How far a program is: moves made, seconds since the epoch; how it ended, as text, and whether it stands still at a replay."""

    moves: int = 0
    time: float = 0.0
    ending: str = ""
    quarantined: bool = False


class Lives(NamedTuple):
    """What became of the programs, and all that the processes had to say."""

    book: dict[str, Page]
    said: str


def live(place: Path, *pythons: str) -> Lives:
    """Let all programs come to their end, each move in a new process: of these Pythons in turn, each time with other hashes."""
    said = ""
    for number, python in enumerate(cycle(pythons)):
        environment = {**os.environ, "PYTHONHASHSEED": str(number + 1)}
        command = [python, "-m", "tests.durability.fresh", str(place)]
        outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert outcome.returncode == -signal.SIGKILL, outcome.stderr
        said += outcome.stderr
        book = read_book(place)
        if all(page.ending for page in book.values()):
            return Lives(book, said)
    raise AssertionError("not reached")


def read_book(place: Path) -> dict[str, Page]:
    """The pages of all programs; new ones where there is no book."""
    if not (place / BOOK).exists():
        return {program.name: Page() for program in PROGRAMS}
    return msgspec.json.decode((place / BOOK).read_bytes(), type=dict[str, Page])


async def go_on(place: Path) -> NoReturn:
    """Make one move of each that has not ended, and die with all of them in memory."""
    book = read_book(place)
    asked: list[asyncio.Task[object]] = []
    async with AsyncExitStack() as stages:
        for program in PROGRAMS:
            page = book[program.name]
            if not page.ending:
                store = f"lmdb:{place}/{program.name}"
                world, ledger = await stages.enter_async_context(stage(place / f"{program.name}.steps", 0, store, page.time))
                await turn_page(world, ledger, program, page, asked)
        (place / BOOK).write_bytes(msgspec.json.encode(book))
        os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("not reached")


async def turn_page(world: World, ledger: Ledger, program: Program, page: Page, asked: list[asyncio.Task[object]]) -> None:
    """Make one move, or find that there is none left; answers that are still to come are waited for in vain."""
    await rest(world, nothing)
    try:
        if not await move(world, program, page.moves, asked):
            answers = [await give(world, program, *each) if isinstance(each[1], Ask) else None for each in enumerate(program.script)]
            page.ending = repr(await ending(world, ledger, program, answers))
    except ActorQuarantined as error:
        page.ending, page.quarantined = str(error), True
    await rest(world, nothing)
    page.moves += 1
    page.time = world.clock.now()


async def move(world: World, program: Program, number: int, asked: list[asyncio.Task[object]]) -> bool:
    """Whether there was anything left to do."""
    if number == 0:
        if program.run is not None:
            await world.start(program.run, KEY)
        return True
    if number > len(program.script):
        return jump(world)
    stimulus = program.script[number - 1]
    given = asyncio.create_task(give(world, program, number - 1, stimulus))
    asked.append(given)
    if not isinstance(stimulus, Ask):
        await given
    return True


if __name__ == "__main__":
    asyncio.run(go_on(Path(sys.argv[1])))
