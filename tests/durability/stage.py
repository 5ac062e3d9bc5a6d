"""The stage for the programs of the matrix: a world each, the ledger of its steps, and what is known when the program has ended.

Whoever is on it may be killed at any time: what is sent is sent with a key, again and again, until it is known to be there.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, final

from perdure.actors import ActorCancelled, ActorFailed, ActorId, RuntimeNotRunning, WorkflowRef, send_signal
from perdure.actors._persistence import read_stream
from perdure.actors.testing import World
from perdure.storage import CommitUncertain
from perdure.tracing import Tracing

from .matrix import Diary
from .programs import ACTORS
from .script import KEY, Ask, Cancel, Pass, Program, Redrive, Send, Stimulus, Tell, Terminate

T = TypeVar("T")
IDS: Final = re.compile(r"[0-9a-f]{32}(-\d+)*")  # they are others in each run


@final
class Ledger:
    """A file in which each attempt at a step writes its idempotency key, and after which commit, before anybody can know of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
        self.commits: Callable[[], int] = lambda: 0

    def note(self, key: str, undone: str = "") -> None:
        """Write it down, durably, and what was undone. Of a thread it is not known which commit its outcome comes with: any later one."""
        commits = self.commits() if threading.current_thread() is threading.main_thread() else sys.maxsize
        os.write(self._file, f"{key} {commits} {undone}\n".encode())
        os.fsync(self._file)

    def close(self) -> None:
        """End with the world."""
        os.close(self._file)

    def read(self) -> Mapping[str, list[int]]:
        """After which commits each key was used, in order."""
        found = defaultdict[str, list[int]](list)
        for line in self._path.read_text().splitlines():
            key, commits, _ = line.split(" ", 2)
            found[key].append(int(commits))
        return found

    def undone(self) -> list[str]:
        """What was undone, in order; what was undone again after a crash only once."""
        found = {key: undone for key, _, undone in (line.split(" ", 2) for line in self._path.read_text().splitlines())}
        return [undone for undone in found.values() if undone]

    def doubled(self, most: int = 1) -> Mapping[str, list[int]]:
        """What of it is there more than so often."""
        return {key: commits for key, commits in self.read().items() if len(commits) > most}


class Ending(NamedTuple):
    """All that can be known of a program that has come to rest."""

    status: str
    steps: int
    result: object
    told: list[str]
    answers: list[object]
    items: list[tuple[str, bytes]]
    letters: list[tuple[str, str, int]]
    undone: list[str]
    others: list[tuple[str, str, list[str]]]


@asynccontextmanager
async def stage(
    path: Path, max_active: int = 10_000, store: str = "memory:", time: float = 0.0, tracing: Tracing | None = None
) -> AsyncIterator[tuple[World, Ledger]]:
    """A world in which it is `time`, if that is given, and the ledger that its steps write at a path."""
    ledger = Ledger(path)
    resources: dict[str, Any] = {"ledger": ledger}
    world = World(ACTORS, store=store, max_active=max_active, resources=resources, seed=os.getpid(), tracing=tracing)
    resources["clock"] = world.clock
    world.clock.move_to(time)
    async with world:
        ledger.commits = lambda: world.store.commits
        yield world, ledger
    ledger.close()


async def surely(act: Callable[[], Awaitable[T]]) -> T:
    """Do it until it is known to be done."""
    while True:
        try:
            return await act()
        except (CommitUncertain, RuntimeNotRunning):
            await asyncio.sleep(0)


async def play(world: World, ledger: Ledger, program: Program, at_rest: Callable[[], Awaitable[None]]) -> Ending:
    """Let a program come to its end; `at_rest` is called whenever it has come to rest on the way."""
    if (run := program.run) is not None:
        await surely(lambda: world.start(run, KEY))
    given: list[asyncio.Task[object]] = []
    for number, stimulus in enumerate(program.script):
        await rest(world, at_rest)
        given.append(asyncio.create_task(give(world, program, number, stimulus)))
        if not isinstance(stimulus, Ask):
            await given[-1]
    await rest(world, at_rest)
    while jump(world) or not all(task.done() for task in given):
        await rest(world, at_rest)
    return await ending(world, ledger, program, [await task for task in given])


async def give(world: World, program: Program, number: int, stimulus: Stimulus) -> object:
    """Send what is to be sent, until it is there; returns the answer, if there is one."""
    ref = world.ref(program.actor, KEY).options(idempotency_key=str(number))
    match stimulus:
        case Send(signal, payload):
            return await surely(lambda: send_signal(ref, signal, payload))
        case Tell(event, argument):
            return await surely(lambda: ref.send_event(event, argument))
        case Ask(event, arguments):
            try:
                return await surely(lambda: ref.ask(event, *arguments))
            except LookupError as error:
                return repr(error)
        case Pass(by):
            end = world.clock.now() + by.total_seconds()
            return await surely(lambda: world.advance(timedelta(seconds=end - world.clock.now())))
        case Cancel(reason):
            return await surely(lambda: ref.cancel(reason))
        case Terminate(reason):
            return await surely(lambda: ref.terminate(reason))
        case Redrive():
            await surely(ref.redrive)  # how many they were is not known if it was only done again
            return None


async def rest(world: World, at_rest: Callable[[], Awaitable[None]]) -> None:
    """Return when nobody has anything to do at this time."""
    await surely(world.settled)
    await surely(world.settled)  # callers who were told of a crash have asked again
    await at_rest()


def jump(world: World) -> bool:
    """Whether anything is due later; then the clock stands there."""
    due = world.clock.next_due()
    if due is not None:
        world.clock.move_to(due)
    return due is not None


async def ending(world: World, ledger: Ledger, program: Program, answers: list[object]) -> Ending:
    """What is known of a program that has come to its end."""
    ref: Any = world.ref(program.run or program.actor, KEY)
    result = None if program.run is None else await surely(lambda: outcome(ref))
    told = await surely(lambda: ref.query(program.actor.diary))
    info = await surely(ref.info)
    items = [(row.name, row.payload) for _, row in await read_stream(world.store, ref.id, 0, 100)]
    letters = [(letter.handler, IDS.sub("…", letter.error), letter.failed) for letter in await surely(world.dead_letters)]
    others = await surely(lambda: others_than(world, ref.id))
    return Ending(info.status, len(ledger.read()), result, told, answers, items, letters, ledger.undone(), others)


async def others_than(world: World, actor: ActorId) -> list[tuple[str, str, list[str]]]:
    """Type, status and diary of all other actors, in no order of theirs: some keys are drawn anew in each run."""
    found = []
    async for info in world.actors():
        kept: Any = world.registry.require(info.id.type).cls
        if info.id != actor:
            told = await world.ref(kept, info.id.key).query(kept.diary) if issubclass(kept, Diary) else []
            found.append((info.id.type, info.status, told))
    return sorted(found)


async def outcome(ref: WorkflowRef[Any, object]) -> object:
    """What the workflow came to."""
    try:
        return await ref.result()
    except ActorFailed as failed:
        return failed.error, [error.step for error in failed.compensation_errors]
    except ActorCancelled as cancelled:
        return str(cancelled)


async def nothing() -> None:
    """What happens at rest as a rule."""


async def undisturbed(tmp_path: Path, program: Program) -> Ending:
    """How a program ends that nobody interrupts."""
    async with stage(tmp_path / f"{program.name} undisturbed") as (world, ledger):
        return await play(world, ledger, program, nothing)
