"""An actor that plays programs of asyncio and anyio, of children, sagas and steps, and writes down how each operation ended.

No two things of a program happen at one moment: each duration has a bit of its own, so what comes first never depends on the host.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final, NamedTuple

import anyio
from perdure.actors import (
    ActorCancelled,
    ChildExit,
    OneForOne,
    Retry,
    SignalTimeout,
    continue_as_new,
    current_actor,
    durable_actor,
    migrate,
    on_child_exit,
    on_event,
    query,
    saga,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)

OWN_BITS: Final = 20  # of a second: at the times of these tests a float has two more


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

    @property
    def delay_of_child(self) -> float:
        """How long its child takes; the number before its own is for that."""
        return self.seconds + 2.0 ** -(self.number - 1)


@step
async def unbook(number: int) -> None:
    undoes = step_info().compensates
    assert undoes is not None
    step_info().resources["undone"][step_info().idempotency_key] = f"{number}: {undoes.outcome}"


@step
async def double(number: int) -> int:
    return 2 * number


@step(compensate=unbook)
async def book(number: int) -> int:
    return number


@step(retry=Retry(max_attempts=9, initial=timedelta(hours=1), maximum=timedelta(hours=1)))
async def call_again_later(number: int) -> None:
    raise ConnectionError(number)


class Clumsiness(Exception):
    """Something that goes better next time."""


class Performer:
    """Plays programs, and writes down how each operation ended."""

    word = signal(int)

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lock = asyncio.Lock()
        self.queue: asyncio.Queue[int] = asyncio.Queue(2)

    @on_event
    async def play(self, op: Op) -> None:
        try:
            answer = await PLAYED[op.kind](self, op)
        except BaseException as error:
            self.told.append(f"{op.number} {op.kind} raises {type(error).__name__}")
            raise
        self.told.append(f"{op.number} {op.kind} {answer}")

    @on_child_exit
    def gone(self, exit: ChildExit) -> None:  # noqa: A002  as the documentation has it
        self.told.append(f"{exit.id} has {exit.status}: {type(exit.error).__name__}")

    @query
    def diary(self) -> list[str]:
        return [*self.told, f"{self.queue.qsize()} in the queue, {'locked' if self.lock.locked() else 'free'}"]


ONCE: Final = Retry(max_attempts=1)  # when one is tried again depends on its id, and so on how often it was sent
CAREFUL: Final = OneForOne(max_restarts=1, within=timedelta(days=1), directives={Clumsiness: "restart"}, otherwise="stop")


@durable_actor(retry=ONCE, supervise=CAREFUL)
class Player(Performer):
    """Plays one program, and then in another life the next."""

    @workflow
    async def run(self, *programs: Op) -> int:
        program, *others = programs
        await self.play(program)
        if others:
            continue_as_new(*others)
        return len(self.told)


@durable_actor(name="Player", version=2, replays=(1,), retry=ONCE, supervise=CAREFUL)
class NextPlayer(Player):
    """Plays the same."""

    @migrate(1)
    @staticmethod
    def unchanged(state: dict[str, Any]) -> dict[str, Any]:
        return state


@durable_actor(retry=ONCE, supervise=CAREFUL)
class Child(Performer):
    """Plays the parts of an operation of its parent."""

    @workflow
    async def run(self, op: Op) -> int:
        await asyncio.sleep(op.delay_of_child)
        await in_turn(self, op)
        return len(self.told)


@durable_actor(name="Child", version=2, replays=(1,), retry=ONCE, supervise=CAREFUL)
class NextChild(Child):
    """Plays the same."""

    unchanged = NextPlayer.__dict__["unchanged"]


@durable_actor(retry=ONCE)
class Clumsy:
    """A child that fails in its first lives, and leaves that to be counted by somebody else."""

    @workflow
    async def run(self, op: Op) -> int:
        await asyncio.sleep(op.delay)
        life = await current_actor().ref(Tally, current_actor().key).ask(Tally.count)
        if life <= op.seconds % 3:
            raise Clumsiness(life)
        return life


@durable_actor(retry=ONCE)
class Tally:
    """Counts."""

    def __init__(self) -> None:
        self.total = 0

    @on_event
    def count(self) -> int:
        self.total += 1
        return self.total


async def in_turn(player: Performer, op: Op) -> None:
    for part in op.parts:
        await player.play(part)


async def sleep(_: Performer, op: Op) -> None:
    await asyncio.sleep(op.delay)


async def call(_: Performer, op: Op) -> int:
    await asyncio.sleep(op.delay)
    return await double(op.number)


async def hear(_: Performer, op: Op) -> int:
    return await wait_for_signal(Performer.word)


async def hear_for_a_while(_: Performer, op: Op) -> int | None:
    with suppress(SignalTimeout, TimeoutError):
        async with asyncio.timeout(op.delay):
            return await wait_for_signal(Performer.word)
    return None


async def put(player: Performer, op: Op) -> None:
    await player.queue.put(op.number)


async def get(player: Performer, _: Op) -> int:
    return await player.queue.get()


async def hold(player: Performer, op: Op) -> None:
    async with player.lock:
        await in_turn(player, op)


async def until(player: Performer, op: Op) -> None:
    await wait_until(lambda: len(player.told) >= 2 * op.seconds)


async def fail(_: Performer, op: Op) -> None:
    raise LookupError(op.number)


async def catch(player: Performer, op: Op) -> str:
    try:
        await in_turn(player, op)
    except Exception as error:  # noqa: BLE001  whatever the parts raise
        return type(error).__name__
    return ""


async def clean_up(player: Performer, op: Op) -> None:
    try:
        await in_turn(player, op)
    finally:
        await asyncio.sleep(op.delay)


async def clean_up_shielded(player: Performer, op: Op) -> None:
    try:
        await in_turn(player, op)
    finally:
        with anyio.CancelScope(shield=True):
            await asyncio.sleep(op.delay)


async def gather(player: Performer, op: Op) -> None:
    await asyncio.gather(*map(player.play, op.parts))


async def group(player: Performer, op: Op) -> None:
    async with asyncio.TaskGroup() as tasks:
        for part in op.parts:
            tasks.create_task(player.play(part))


async def group_of_anyio(player: Performer, op: Op) -> None:
    async with anyio.create_task_group() as tasks:
        for part in op.parts:
            tasks.start_soon(player.play, part)


async def first(player: Performer, op: Op) -> int:
    tasks = [asyncio.create_task(player.play(part)) for part in op.parts]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return len(done)


async def time_out(player: Performer, op: Op) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(op.delay):
            await in_turn(player, op)


async def wait_for(player: Performer, op: Op) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(in_turn(player, op), op.delay)


async def move_on(player: Performer, op: Op) -> bool:
    with anyio.move_on_after(op.delay) as scope:
        await in_turn(player, op)
    return scope.cancelled_caught


async def cancel(player: Performer, op: Op) -> bool:
    task = asyncio.create_task(in_turn(player, op))
    await asyncio.sleep(op.delay)
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled() or task.exception() is not None


async def leave_behind(player: Performer, op: Op) -> None:
    asyncio.create_task(in_turn(player, op))  # noqa: RUF006  that nobody holds it is what this is about


async def call_in_vain(_: Performer, op: Op) -> None:
    await asyncio.sleep(op.delay)
    await call_again_later(op.number)


async def book_alone(_: Performer, op: Op) -> int:
    await asyncio.sleep(op.delay)
    return await book(op.number)


async def undo(player: Performer, op: Op) -> None:
    try:
        async with saga():
            await book(op.number)
            await in_turn(player, op)
    except BaseException:
        await asyncio.sleep(op.delay)  # the steps of two sagas that are undone at one moment end in any order
        raise


async def undo_all(player: Performer, op: Op) -> None:
    try:
        async with saga():
            await gather(player, op)
    except BaseException:
        await asyncio.sleep(op.delay)
        raise


async def child(_: Performer, op: Op) -> int:
    return await spawn(Child.run, f"c-{op.number}", op).result()


async def child_left(_: Performer, op: Op) -> None:
    closings: Any = "cancel", "abandon", "terminate"
    spawn.options(on_parent_close=closings[op.seconds % 3])(Child.run, f"c-{op.number}", op)


async def child_ended(_: Performer, op: Op) -> str:
    ref = spawn(Child.run, f"c-{op.number}", op)
    await asyncio.sleep(op.delay)
    if op.seconds % 2:
        ref.cancel("enough")
    else:
        ref.terminate("enough")
    try:
        return str(await ref.result())
    except ActorCancelled as cancelled:
        return cancelled.reason


async def clumsy(_: Performer, op: Op) -> int:
    return await spawn(Clumsy.run, f"c-{op.number}", op).result()


async def clumsy_left(_: Performer, op: Op) -> None:
    spawn.options(on_parent_close="abandon")(Clumsy.run, f"c-{op.number}", op)


async def stream(player: Performer, op: Op) -> list[int]:
    send, receive = anyio.create_memory_object_stream[int]()
    received: list[int] = []
    async with anyio.create_task_group() as tasks, receive:
        tasks.start_soon(_send_all, player, op, send)
        async for number in receive:
            received.append(number)  # noqa: PERF401  what came before a cancellation counts
    return received


async def _send_all(player: Performer, op: Op, send: Any) -> None:
    async with send:
        for part in op.parts:
            await player.play(part)
            await send.send(part.number)


PLAYED: Final[dict[str, Callable[[Performer, Op], Awaitable[object]]]] = {
    played.__name__: played
    for played in (
        *(sleep, call, hear, hear_for_a_while, put, get, until, fail, call_in_vain, book_alone, clumsy, clumsy_left),
        *(in_turn, hold, catch, clean_up, clean_up_shielded, gather, group, group_of_anyio, first),
        *(time_out, wait_for, move_on, cancel, leave_behind, stream),
        *(undo, undo_all, child, child_left, child_ended),
    )
}
LEAVES: Final = [
    *("sleep", "sleep", "call", "call", "hear", "hear_for_a_while", "put", "get", "until", "fail"),
    *("call_in_vain", "book_alone", "book_alone", "clumsy", "clumsy_left"),
]
BRANCHES: Final = sorted(PLAYED.keys() - {*LEAVES})
OF_TWO: Final = {"child", "child_left", "child_ended", "clumsy", "clumsy_left"}  # numbers: two durations, or one twice


def numbered(op: Op, numbers: Iterator[int]) -> Op:
    if op.kind in OF_TWO:
        next(numbers)
    return op._replace(number=next(numbers), parts=tuple(numbered(part, numbers) for part in op.parts))
