"""Trials: a test is run again and again, each time in a world of its own with another trouble, and its own assertions have to hold.

First without trouble, which counts the commits. Then with a crash before and after each of them; with no actor in memory, everything sent
twice, the body of each step run twice; and, by seeds, with two crashes, and with whatever a host may choose chosen by chance.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import shlex
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, NoReturn, ParamSpec, final, overload

from .._errors import ActorQuarantined, NonDeterminismError
from .._journal import ASKED_OTHERWISE
from .._past import read_past
from .._ref import ActorRef
from .._replaying import MENDED
from .._version_errors import VersionMismatch
from ._replay import replay_past
from ._scenario import Crash, CrashPoint, Scenario, sampled
from ._witness import Sight, Witness
from ._world import World

P = ParamSpec("P")

SEEDS: Final = 3
AT_MOST: Final = 1_000  # commits that a test is crashed at
SHOWN: Final = 20  # lines of an actor's history in a report
ONCE: Final = "steps run at least once; let whoever is called tell a repetition by step_info().idempotency_key"
BEFOREHAND: Final = "each run has one of its own; begin in the test what a fixture has begun, who may replace steps beforehand, and no more"

logger = logging.getLogger("perdure.actors")


class DoesNotSurvive(AssertionError):
    """A test holds as long as nothing happens to its host, and not otherwise."""

    __module__ = "perdure.actors.testing"


@overload
def survives_crashes(test: Callable[P, Awaitable[None]], /) -> Callable[P, Awaitable[None]]: ...
@overload
def survives_crashes(*, seeds: int | Iterable[int] = ...) -> Callable[[Callable[P, Awaitable[None]]], Callable[P, Awaitable[None]]]: ...
def survives_crashes(test: Any = None, /, *, seeds: int | Iterable[int] = SEEDS) -> Any:
    """Run an `async` test, which takes a `World`, again and again in new ones, each with another trouble.

    `seeds`: for what chance adds; a number means so many from 0. A failure, DoesNotSurvive, tells the trouble, what the actors had done,
    and the command that brings it back. What else the test takes is the same each time: make in the test what its steps change.
    """
    if test is None:
        return functools.partial(_surviving, seeds=seeds)
    return _surviving(test, seeds=seeds)


def _surviving(test: Callable[..., Awaitable[None]], *, seeds: int | Iterable[int]) -> Callable[..., Awaitable[None]]:
    chosen = list(range(seeds) if isinstance(seeds, int) else seeds)

    @functools.wraps(test)
    async def survivor(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        given = inspect.signature(test).bind(*args, **kwargs)
        for name, value in given.arguments.items():
            if isinstance(value, World):
                if value.has_begun:
                    raise TypeError(f"{test.__qualname__}(…) was given a World that is in use already: {BEFOREHAND}")
                await Trial(test, given, name, value).run(chosen)
                return
        raise TypeError(f"{test.__qualname__}(…) was given no World: it takes one, as `world: World` or `durable_world: World`")

    survivor.is_trial = True  # type: ignore[attr-defined]  # the plug-in begins no world for it
    return survivor


@final
class Trial:
    """One test and what it was given; `name` is the argument that is a world, after whose model others are made."""

    def __init__(self, test: Callable[..., Awaitable[None]], given: inspect.BoundArguments, name: str, model: World) -> None:
        self._test = test
        self._given = given
        self._name = name
        self._model = model
        self._made = 0
        self._witness = Witness()
        self._replayed: list[Sight] = []  # what it saw of code that a replay runs again

    async def run(self, seeds: list[int]) -> None:
        """Try everything; or only what the model's own scenario says."""
        __tracebackhide__ = True
        if self._model.scenario != Scenario():
            await self._survive(self._model.scenario)
            return
        with self._witness.watching():
            plain = await self._survive(Scenario())
        if self._replayed:
            _tell("\n".join(["code of an actor that is replayed after a crash does what no replay repeats:", *map(str, self._replayed)]))
        for step in plain.bodies.steps:
            await self._survive(Scenario(twice=step))
        await self._survive(Scenario(evict=True))
        await self._survive(Scenario(resend=True))
        await self._survive(Scenario(evict=True, resend=True))
        await self._crash_everywhere()
        for scenario in sampled(max(1, plain.commits), seeds):
            await self._survive(scenario)

    async def _crash_everywhere(self) -> None:
        __tracebackhide__ = True
        for point in CrashPoint:
            for nth in count(1):
                crashed = await self._survive(Scenario((Crash(point, nth),)))
                if crashed.commits < nth or nth >= AT_MOST:
                    break

    async def _survive(self, scenario: Scenario) -> World:
        """Run the test under a scenario; returns the world that it had."""
        __tracebackhide__ = True
        self._made += 1
        world = self._model.under(scenario, self._made)
        self._given.arguments[self._name] = world
        with _complaints() as heard:
            async with world:
                try:
                    await self._test(*self._given.args, **self._given.kwargs)
                    await _look_back(world, heard)
                    if world.scenario == Scenario():
                        await _replay_all(world)
                        self._replayed = [sight for sight in self._witness.sights if await _is_replayed(world, sight)]
                except (KeyboardInterrupt, SystemExit, asyncio.CancelledError):
                    raise
                except BaseException as error:  # pytest's own way to fail is none of the ordinary ones
                    if scenario == Scenario():
                        raise
                    _tell(await self._report(world, error), error)
        world.erase()
        return world

    async def _report(self, world: World, error: BaseException) -> str:
        """What is to be known of a failure: the trouble, what the actors had done, how to bring it back."""
        told = f"the test holds without trouble, and fails with {world.scenario.told()}"
        first = str(error).strip().splitlines()[:1]
        lines = [told, f"    {type(error).__name__}: {first[0] if first else ''}".rstrip(" :")]
        try:
            lines += await _histories(world)
        except Exception as problem:  # noqa: BLE001  whatever the host has ended with
            lines.append(f"what the actors had done cannot be read: {type(problem).__name__}: {problem}")
        repeated = world.bodies.repeated()
        if world.scenario.twice is not None:
            lines.append(f"the step {world.scenario.twice} is not idempotent: {ONCE}")
        elif repeated:
            runs = ", ".join(f"{step} ran {times} times" for step, times in repeated.items())
            lines.append(f"for one asking {runs}, since the host died before the outcome was recorded: {ONCE}")
        return "\n".join([*lines, "to bring it back:", f"    {self._command(world.scenario)}"])

    def _command(self, scenario: Scenario) -> str:
        if self._model.test_id is None:
            return f"World(scenario={str(scenario)!r})"
        return shlex.join(["pytest", self._model.test_id, f"--perdure-scenario={scenario}"])


def _tell(report: str, cause: BaseException | None = None) -> NoReturn:
    raise DoesNotSurvive(report) from cause


async def _look_back(world: World, heard: list[str]) -> None:
    """What no assertion of the test may have seen, once the actors have done what they have to do now. Raises AssertionError."""
    await world.settled()
    async for info in world.actors(status="quarantined"):
        raise AssertionError(f"{info.id} is quarantined: {info.error}")
    assert not heard, "\n".join(heard)


async def _replay_all(world: World) -> None:
    """Run once more what the actors' code did: it may depend on what other runs of the test have left in this process.

    Raises DoesNotSurvive where it comes to something else.
    """
    async for info in world.actors():
        past = await read_past(world.store, info.id)
        try:
            if past is not None:
                replay_past(past, world.registry, world.resources)
        except VersionMismatch:
            pass  # the test is about deploys
        except (NonDeterminismError, ActorQuarantined) as error:
            _tell(f"what {info.id} did is not what a replay of it does: its code reads what no replay repeats\n{error}", error)


async def _is_replayed(world: World, sight: Sight) -> bool:
    """Whether anything of the actor waited before or after that turn: only then a crash has it replayed."""
    before = ""
    for entry in await world.history(ActorRef(sight.actor, world)):
        if entry.turn == sight.turn:
            return "suspended" in (before, entry.status)
        before = entry.status
    return True


async def _histories(world: World) -> list[str]:
    """What the actors have done, the last of it if it is much."""
    lines: list[str] = []
    async for info in world.actors():
        entries = await world.history(ActorRef(info.id, world))
        lines.append(f"{info.id} is {info.status}" + (f"; the last {SHOWN} of {len(entries)} messages:" if len(entries) > SHOWN else ":"))
        lines += [f"    {entry}" for entry in entries[-SHOWN:]]
        if len(lines) > 5 * SHOWN:
            return [*lines, "    …"]
    return lines


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """Hear of replays that were mended, and of nothing else of the trouble that was asked for."""
    heard: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        if record.msg in (MENDED, ASKED_OTHERWISE):
            heard.append(record.getMessage())
        return False

    logger.addFilter(hear)
    try:
        yield heard
    finally:
        logger.removeFilter(hear)
