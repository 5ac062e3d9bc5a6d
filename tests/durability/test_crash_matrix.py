"""Crash around any commit, restart at any rest: every durable primitive comes to the same end, and no recorded step runs again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count, product
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import pytest
from perdure.actors import RuntimeNotRunning, send_signal
from perdure.actors._persistence import read_stream
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .matrix import ACTORS, KEY, PROGRAMS, Ask, Ledger, Pass, Program, Send, Stimulus

pytestmark = pytest.mark.anyio

T = TypeVar("T")
CROWDED: Final = [10_000, 0]  # actors in memory; with none each turn is taken after a replay


class Ending(NamedTuple):
    """All that can be known of a program that has come to rest."""

    status: str
    steps: int
    result: object
    told: list[str]
    answers: list[object]
    items: list[tuple[str, bytes]]
    letters: list[tuple[str, str]]


@asynccontextmanager
async def stage(tmp_path: Path, max_active: int, store: str = "memory:") -> AsyncIterator[tuple[World, Ledger]]:
    """A world, and the ledger that its steps write."""
    ledger = Ledger(tmp_path)
    async with World(ACTORS, store=store, max_active=max_active, resources={"ledger": ledger}) as world:
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
        case Ask(event, arguments):
            try:
                return await surely(lambda: ref.ask(event, *arguments))
            except LookupError as error:
                return repr(error)
        case Pass(by):
            end = world.clock.now() + by.total_seconds()
            return await surely(lambda: world.advance(timedelta(seconds=end - world.clock.now())))


async def rest(world: World, at_rest: Callable[[], Awaitable[None]]) -> None:
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
    ref: Any = world.ref(program.run or program.actor, KEY)
    result = None if program.run is None else await surely(ref.result)
    told = await surely(lambda: ref.query(program.actor.diary))
    info = await surely(ref.info)
    items = [(row.name, row.payload) for _, row in await read_stream(world.store, ref.id, 0, 100)]
    letters = [(letter.handler, letter.error) for letter in await surely(world.dead_letters)]
    return Ending(info.status, len(ledger.read()), result, told, answers, items, letters)


async def nothing() -> None:
    """What happens at rest as a rule."""


async def undisturbed(tmp_path: Path, program: Program) -> Ending:
    async with stage(tmp_path, CROWDED[0]) as (world, ledger):
        return await play(world, ledger, program, nothing)


def repeated(ledger: Ledger, durable: int) -> dict[str, list[int]]:
    """The steps that were run again although the commit that had their outcome was durable: the one after the last that they saw."""
    return {key: commits for key, commits in ledger.read().items() if len(commits) > 1 and commits[0] < durable}


@pytest.mark.parametrize("max_active", CROWDED)
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_crash_around_any_commit_changes_nothing(program: Program, point: CrashPoint, max_active: int, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for nth in count(1):
        async with stage(tmp_path, max_active) as (world, ledger):
            world.crash_at(point, nth)

            found = await play(world, ledger, program, nothing)

            assert (nth, found) == (nth, expected)
            assert repeated(ledger, nth if point is CrashPoint.AFTER_COMMIT else nth - 1) == {}
            if not world.store.crashes:
                break


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_crash_after_every_few_commits_changes_nothing(program: Program, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for point, every in product(CrashPoint, (3, 4, 5)):
        async with stage(tmp_path, every % 2) as (world, ledger):
            for nth in range(every, 1000, every):
                world.crash_at(point, nth)

            found = await play(world, ledger, program, nothing)

            assert (point, every, found) == (point, every, expected)
            assert {key: commits for key, commits in ledger.read().items() if len(commits) > 1 + world.store.crashes} == {}


@pytest.mark.parametrize("store", ["memory:", "lmdb:{}/store"], ids=["memory", "lmdb"])
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
async def test_a_restart_at_every_rest_changes_nothing(program: Program, store: str, tmp_path: Path) -> None:
    expected = await undisturbed(tmp_path, program)

    for max_active in CROWDED:
        async with stage(tmp_path, max_active, store.format(tmp_path / str(max_active))) as (world, ledger):
            found = await play(world, ledger, program, world.restart)

            assert found == expected
            assert {key: commits for key, commits in ledger.read().items() if len(commits) > 1} == {}
