"""Random programs come to the same end however often their host dies, and whenever their actors leave memory.

No two things of a program happen at one moment: each duration has a bit of its own, so what comes first never depends on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count, groupby
from typing import Any, Final, Literal, NamedTuple, TypeVar, get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from perdure.actors import ActorCompleted, ActorInfo, RuntimeNotRunning, send_signal
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .player import BRANCHES, LEAVES, OWN_BITS, Child, Clumsy, NextChild, NextPlayer, Op, Performer, Player, Tally, numbered

T = TypeVar("T")
KEY: Final = "a"
OUTSIDE: Final = 2.0**-22  # what happens from outside has the last one for itself


Wish = Literal["cancel", "terminate", "redrive"]


class Message(NamedTuple):
    """What is sent from outside after some seconds: a signal's number, an event's program, or what is to become of it."""

    after: int
    content: int | Op | Wish


class Trouble(NamedTuple):
    """What befalls the host: `at` each commit, a crash around it; how many actors it keeps, whether it is killed at each rest.

    `deploys`: at which rest it is replaced by the next version, which replays what waits.
    """

    max_active: int
    at: CrashPoint | None = None
    is_killed: bool = False
    deploys: int = 0
    rests: Iterator[int] = count(1)


class Rest(NamedTuple):
    """All that can be known of an actor that has come to rest."""

    name: str
    status: str
    diary: list[str]
    waits: list[tuple[str, str, float | None]]
    children: list[str]


class Ending(NamedTuple):
    """All that can be known of a program that has come to rest: of each actor, and of them together."""

    actors: list[Rest]
    result: str
    undone: list[str]
    letters: list[tuple[str, str, str]]
    now: float


def settled_order(diary: list[str]) -> list[str]:
    """A diary in which those stand in one order that were cancelled together: several steps end at one moment as their host has it."""
    runs = groupby(diary, key=lambda line: line.endswith("raises CancelledError"))
    return [line for are_cancelled, run in runs for line in (sorted(run) if are_cancelled else run)]


def outcome_of(error: BaseException) -> str:
    return f"{type(error).__name__} from {type(error.__cause__).__name__}"


async def surely(act: Callable[[], Awaitable[T]]) -> T:
    """Do it until it is known to be done."""
    while True:
        try:
            return await asyncio.wait_for(act(), 10)
        except (CommitUncertain, RuntimeNotRunning):
            await asyncio.sleep(0)


async def send(world: World, number: int, content: int | Op | Wish) -> None:
    hosted: type[Player] = world.registry.require("Player").cls
    player = world.ref(hosted, KEY).options(idempotency_key=f"message {number}")
    with suppress(ActorCompleted):  # it is in the dead letters
        match content:
            case Op():
                await player.send_event(Player.play, content)
            case int():
                await send_signal(player, Player.word, content)
            case "cancel":
                await player.cancel("enough")
            case "terminate":
                await player.terminate("enough")
            case "redrive":
                await player.redrive()


async def rest(world: World, trouble: Trouble) -> None:
    """Let happen what happens now; then the next trouble is prepared."""
    await surely(world.settled)
    is_deployed = next(trouble.rests) == trouble.deploys
    if trouble.is_killed or is_deployed:
        await world.restart(NEXT if is_deployed else None)
        await surely(world.settled)
    if trouble.at is not None:
        world.crash_at(trouble.at, 1)


async def move_to(world: World, moment: float, trouble: Trouble) -> None:
    while (due := world.clock.next_due()) is not None and due <= moment:
        world.clock.move_to(due)
        await rest(world, trouble)
    world.clock.move_to(moment)


async def play(programs: list[Op], messages: list[Message], trouble: Trouble) -> Ending:
    undone: dict[str, str] = {}
    trouble = trouble._replace(rests=count(1))
    async with World([Player, Child, Clumsy, Tally], max_active=trouble.max_active, resources={"undone": undone}) as world:
        start = world.clock.now() + OUTSIDE
        await rest(world, trouble)
        await surely(lambda: world.start(Player.run, KEY, *programs))
        await rest(world, trouble)
        for number, message in enumerate(messages):
            start += message.after
            await move_to(world, start, trouble)
            await surely(partial(send, world, number, message.content))
            await rest(world, trouble)
        await move_to(world, start + 200, trouble)
        return await surely(lambda: ending(world, undone))


async def ending(world: World, undone: dict[str, str]) -> Ending:
    found = [await at_rest(world, info) async for info in world.actors()]
    letters = sorted((str(letter.actor), letter.handler, letter.error) for letter in await world.dead_letters())
    return Ending(sorted(found), await result(world), sorted(undone.values()), letters, world.clock.now())


async def at_rest(world: World, info: ActorInfo) -> Rest:
    performer: Any = world.registry.require(info.id.type).cls
    diary = await world.ref(performer, info.id.key).query(performer.diary) if issubclass(performer, Performer) else []
    waits = sorted((each.kind, each.name, each.until) for each in info.waits)
    return Rest(str(info.id), info.status, settled_order(diary), waits, [f"{child.id} {child.restarts}" for child in info.children])


async def result(world: World) -> str:
    player = world.ref(Player.run, KEY)
    if (await player.info()).status == "suspended":
        return ""
    try:
        return str(await player.result())
    except (CommitUncertain, RuntimeNotRunning):
        raise
    except Exception as error:  # noqa: BLE001  whatever the workflow came to
        return outcome_of(error)


SECONDS = st.integers(0, 4)
OPS = st.recursive(
    st.builds(Op, st.sampled_from(LEAVES), st.just(()), SECONDS),
    lambda parts: st.builds(Op, st.sampled_from(BRANCHES), st.lists(parts, min_size=1, max_size=3).map(tuple), SECONDS),
    max_leaves=8,
)
WISHES = st.sampled_from(get_args(Wish))
MESSAGES = st.lists(st.builds(Message, SECONDS, st.integers(1, 9) | OPS | WISHES), max_size=4)
NEXT: Final = NextPlayer, NextChild, Clumsy, Tally
TROUBLES: Final = [
    Trouble(max_active=0),
    Trouble(max_active=0, at=CrashPoint.AFTER_COMMIT),
    Trouble(max_active=100, at=CrashPoint.BEFORE_COMMIT),
    Trouble(max_active=100, is_killed=True),
    Trouble(max_active=0, deploys=3),
    Trouble(max_active=100, at=CrashPoint.BEFORE_COMMIT, deploys=4),
]


@pytest.mark.promise("what-waits-goes-on", "leaving-memory-changes-nothing")
@settings(max_examples=70)
@given(st.lists(OPS, min_size=1, max_size=2), MESSAGES)
def test_what_a_program_comes_to_depends_on_no_crash_and_no_eviction(programs: list[Op], messages: list[Message]) -> None:
    numbers = count(1)
    programs = [numbered(program, numbers) for program in programs]
    messages = [each._replace(content=numbered(each.content, numbers)) if isinstance(each.content, Op) else each for each in messages]
    assume(next(numbers) <= OWN_BITS + 1)

    endings = [asyncio.run(play(programs, messages, trouble)) for trouble in [Trouble(max_active=100), *TROUBLES]]

    assert endings == [endings[0]] * len(endings), dict(zip(TROUBLES, endings[1:], strict=True))
