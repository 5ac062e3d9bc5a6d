"""Random programs of asyncio and anyio come to the same end however often their host dies, and whenever their actor leaves memory.

No two things of a program happen at one moment: each duration has a bit of its own, so what comes first never depends on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar

import anyio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from perdure.actors import (
    ActorCompleted,
    Retry,
    RuntimeNotRunning,
    SignalTimeout,
    durable_actor,
    on_event,
    query,
    send_signal,
    signal,
    step,
    wait_for_signal,
    wait_until,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

T = TypeVar("T")
KEY: Final = "a"
OWN_BITS: Final = 20  # of a second: at the times of these tests a float has two more
OUTSIDE: Final = 2.0**-22  # what happens from outside has the last one for itself


class Op(NamedTuple):
    """One operation, with those that it consists of; it may take some seconds, and has a number of its own from 1."""

    kind: str
    parts: tuple[Op, ...] = ()
    seconds: int = 0
    number: int = 0

    @property
    def delay(self) -> float:
        """How long it takes, in seconds."""
        return self.seconds + 2.0**-self.number


class Message(NamedTuple):
    """What is sent from outside after some seconds: a signal's number, or an event's program."""

    after: int
    content: int | Op


class Trouble(NamedTuple):
    """What befalls the host: `at` each commit, a crash around it; and how many actors it keeps, and whether it is killed at each rest."""

    max_active: int
    at: CrashPoint | None = None
    is_killed: bool = False


class Ending(NamedTuple):
    """All that can be known of an actor that has come to rest."""

    status: str
    diary: list[str]
    result: str
    waits: list[tuple[str, str, float | None]]
    letters: list[tuple[str, str]]
    now: float


@step
async def double(number: int) -> int:
    return 2 * number


@durable_actor(retry=Retry(max_attempts=1))  # when one is tried again depends on its id, and so on how often it was sent
class Player:
    """Plays programs, and writes down how each operation ended."""

    word = signal(int)

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lock = asyncio.Lock()
        self.queue: asyncio.Queue[int] = asyncio.Queue(2)

    @workflow
    async def run(self, program: Op) -> int:
        await self.play(program)
        return len(self.told)

    @on_event
    async def play(self, op: Op) -> None:
        try:
            answer = await PLAYED[op.kind](self, op)
        except BaseException as error:
            self.told.append(f"{op.number} {op.kind} raises {type(error).__name__}")
            raise
        self.told.append(f"{op.number} {op.kind} {answer}")

    @query
    def diary(self) -> list[str]:
        return [*self.told, f"{self.queue.qsize()} in the queue, {'locked' if self.lock.locked() else 'free'}"]


async def in_turn(player: Player, op: Op) -> None:
    for part in op.parts:
        await player.play(part)


async def sleep(_: Player, op: Op) -> None:
    await asyncio.sleep(op.delay)


async def call(_: Player, op: Op) -> int:
    await asyncio.sleep(op.delay)
    return await double(op.number)


async def hear(_: Player, op: Op) -> int:
    return await wait_for_signal(Player.word)


async def hear_for_a_while(_: Player, op: Op) -> int | None:
    with suppress(SignalTimeout, TimeoutError):
        async with asyncio.timeout(op.delay):
            return await wait_for_signal(Player.word)
    return None


async def put(player: Player, op: Op) -> None:
    await player.queue.put(op.number)


async def get(player: Player, _: Op) -> int:
    return await player.queue.get()


async def hold(player: Player, op: Op) -> None:
    async with player.lock:
        await in_turn(player, op)


async def until(player: Player, op: Op) -> None:
    await wait_until(lambda: len(player.told) >= 2 * op.seconds)


async def fail(_: Player, op: Op) -> None:
    raise LookupError(op.number)


async def catch(player: Player, op: Op) -> str:
    try:
        await in_turn(player, op)
    except Exception as error:  # noqa: BLE001  whatever the parts raise
        return type(error).__name__
    return ""


async def clean_up(player: Player, op: Op) -> None:
    try:
        await in_turn(player, op)
    finally:
        await asyncio.sleep(op.delay)


async def clean_up_shielded(player: Player, op: Op) -> None:
    try:
        await in_turn(player, op)
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(op.delay)


async def gather(player: Player, op: Op) -> None:
    await asyncio.gather(*map(player.play, op.parts))


async def group(player: Player, op: Op) -> None:
    async with asyncio.TaskGroup() as tasks:
        for part in op.parts:
            tasks.create_task(player.play(part))


async def group_of_anyio(player: Player, op: Op) -> None:
    async with anyio.create_task_group() as tasks:
        for part in op.parts:
            tasks.start_soon(player.play, part)


async def first(player: Player, op: Op) -> int:
    tasks = [asyncio.create_task(player.play(part)) for part in op.parts]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(done)


async def time_out(player: Player, op: Op) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(op.delay):
            await in_turn(player, op)


async def wait_for(player: Player, op: Op) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(in_turn(player, op), op.delay)


async def move_on(player: Player, op: Op) -> bool:
    with anyio.move_on_after(op.delay) as scope:
        await in_turn(player, op)
    return scope.cancelled_caught


async def cancel(player: Player, op: Op) -> bool:
    task = asyncio.create_task(in_turn(player, op))
    await asyncio.sleep(op.delay)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled() or task.exception() is not None


async def leave_behind(player: Player, op: Op) -> None:
    asyncio.create_task(in_turn(player, op))  # noqa: RUF006  that nobody holds it is what this is about


async def stream(player: Player, op: Op) -> list[int]:
    send, receive = anyio.create_memory_object_stream[int]()
    received: list[int] = []
    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(_send_all, player, op, send)
        async for number in receive:
            received.append(number)  # noqa: PERF401  what came before a cancellation counts
    return received


async def _send_all(player: Player, op: Op, send: Any) -> None:
    async with send:
        for part in op.parts:
            await player.play(part)
            await send.send(part.number)


PLAYED: Final[dict[str, Callable[[Player, Op], Awaitable[object]]]] = {
    played.__name__: played
    for played in (
        *(sleep, call, hear, hear_for_a_while, put, get, until, fail),
        *(in_turn, hold, catch, clean_up, clean_up_shielded, gather, group, group_of_anyio, first),
        *(time_out, wait_for, move_on, cancel, leave_behind, stream),
    )
}
LEAVES: Final = ["sleep", "sleep", "call", "call", "hear", "hear_for_a_while", "put", "get", "until", "fail"]


def numbered(op: Op, numbers: Iterator[int]) -> Op:
    return op._replace(number=next(numbers), parts=tuple(numbered(part, numbers) for part in op.parts))


def outcome_of(error: BaseException) -> str:
    return f"{type(error).__name__} from {type(error.__cause__).__name__}"


async def surely(act: Callable[[], Awaitable[T]]) -> T:
    """Do it until it is known to be done."""
    while True:
        try:
            return await asyncio.wait_for(act(), 10)
        except (CommitUncertain, RuntimeNotRunning):
            await asyncio.sleep(0)


async def send(world: World, number: int, content: int | Op) -> None:
    player = world.ref(Player, KEY).options(idempotency_key=f"message {number}")
    with suppress(ActorCompleted):  # it is in the dead letters
        await (player.send_event(Player.play, content) if isinstance(content, Op) else send_signal(player, Player.word, content))


async def rest(world: World, trouble: Trouble) -> None:
    """Let happen what happens now; then the next trouble is prepared."""
    await surely(world.settled)
    if trouble.is_killed:
        await world.restart()
        await surely(world.settled)
    if trouble.at is not None:
        world.crash_at(trouble.at, 1)


async def move_to(world: World, moment: float, trouble: Trouble) -> None:
    while (due := world.clock.next_due()) is not None and due <= moment:
        world.clock.move_to(due)
        await rest(world, trouble)
    world.clock.move_to(moment)


async def play(program: Op, messages: list[Message], trouble: Trouble) -> Ending:
    async with World([Player], max_active=trouble.max_active) as world:
        start = world.clock.now() + OUTSIDE
        await rest(world, trouble)
        await surely(lambda: world.start(Player.run, KEY, program))
        for number, message in enumerate(messages):
            start += message.after
            await move_to(world, start, trouble)
            await surely(partial(send, world, number, message.content))
            await rest(world, trouble)
        await move_to(world, start + 200, trouble)
        return await surely(lambda: ending(world))


async def ending(world: World) -> Ending:
    player = world.ref(Player.run, KEY)
    info = await player.info()
    result = ""
    if info.status != "suspended":
        try:
            result = str(await player.result())
        except (CommitUncertain, RuntimeNotRunning):
            raise
        except Exception as error:  # noqa: BLE001  whatever the workflow came to
            result = outcome_of(error)
    letters = [(letter.handler, letter.error) for letter in await world.dead_letters()]
    waits = sorted((each.kind, each.name, each.until) for each in info.waits)
    return Ending(info.status, await player.query(Player.diary), result, waits, letters, world.clock.now())


SECONDS = st.integers(0, 4)
OPS = st.recursive(
    st.builds(Op, st.sampled_from(LEAVES), st.just(()), SECONDS),
    lambda parts: st.builds(
        Op, st.sampled_from(sorted(PLAYED.keys() - {*LEAVES})), st.lists(parts, min_size=1, max_size=3).map(tuple), SECONDS
    ),
    max_leaves=8,
)
MESSAGES = st.lists(st.builds(Message, SECONDS, st.integers(1, 9) | OPS), max_size=4)
TROUBLES: Final = [
    Trouble(max_active=0),
    Trouble(max_active=0, at=CrashPoint.AFTER_COMMIT),
    Trouble(max_active=100, at=CrashPoint.BEFORE_COMMIT),
    Trouble(max_active=100, is_killed=True),
]


@settings(max_examples=100)
@given(OPS, MESSAGES)
def test_what_a_program_comes_to_depends_on_no_crash_and_no_eviction(program: Op, messages: list[Message]) -> None:
    numbers = count(1)
    program = numbered(program, numbers)
    messages = [each._replace(content=numbered(each.content, numbers)) if isinstance(each.content, Op) else each for each in messages]
    assume(next(numbers) <= OWN_BITS + 1)

    endings = [asyncio.run(play(program, messages, trouble)) for trouble in [Trouble(max_active=100), *TROUBLES]]

    assert endings == [endings[0]] * len(endings), dict(zip(TROUBLES, endings[1:], strict=True))
