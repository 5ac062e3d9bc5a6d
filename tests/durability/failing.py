"""Programs of actors in which something goes wrong: children that fail, cancels, sagas that are undone, messages that are put aside.

As those of the matrix, none of them depends on when a crash comes, nor on who runs it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

from perdure.actors import (
    ActorCancelled,
    Backoff,
    ChildExit,
    ChildFailed,
    OneForAll,
    OneForOne,
    RestForOne,
    Retry,
    StepFailed,
    continue_as_new,
    current_actor,
    durable_actor,
    on_child_exit,
    on_event,
    on_signal,
    saga,
    spawn,
    step,
    step_info,
    workflow,
)

from .matrix import DAY, PATIENT, Account, Diary, hopeless, note_this
from .script import Cancel, Pass, Program, Redrive, Send, Tell, Terminate

# --- steps ---


@step
async def unbook(what: str) -> None:
    undoes = step_info().compensates
    note_this(what if undoes is None else f"{what}: {undoes.outcome}")


@step
async def unbook_at_last(what: str) -> None:
    if step_info().attempt == 1:
        raise ConnectionError(what)
    note_this(f"{what} at last")


@step(compensate=unbook)
async def book(what: str) -> str:
    note_this()
    return f"{what} is booked"


@step
async def unbook_in_vain(what: str) -> None:
    raise ConnectionError(what)


@step(compensate=unbook_in_vain)
async def book_for_good(what: str) -> str:
    note_this()
    return f"{what} is booked for good"


@step
async def hang(what: str) -> None:
    """Ten minutes pass, and it has not ended: it has to be cancelled."""
    await asyncio.sleep(0.002)  # of real time: what was asked for together with it is under way then
    clock = step_info().resources["clock"]
    clock.move_to(clock.now() + 600)
    await asyncio.Event().wait()


@step(compensate=unbook)
async def book_slowly(what: str) -> None:
    await hang.function(what)


@step(retry=Retry(max_attempts=1))
async def refuse(what: str) -> None:
    raise LookupError(what)


# --- children ---


@durable_actor
class Worker(Diary):
    """A child: it works, then waits, and cleans up."""

    @workflow
    async def run(self, name: str, seconds: float = 0.0) -> str:
        try:
            await self.charge(name)
            await asyncio.sleep(seconds)
        finally:
            await self.charge(f"the end of {name}")
        return f"{name} is done"


@durable_actor
class Clumsy(Diary):
    """A child that fails in its first lives."""

    @workflow
    async def run(self, failures: int) -> str:
        await asyncio.sleep(60)
        life = await current_actor().ref(Account, current_actor().key).ask(Account.deposit, 1)
        if life <= failures:
            raise LookupError(f"life {life}")
        return f"well in life {life}"


@durable_actor
class Patient(Diary):
    """A child that counts its lives and waits."""

    @workflow
    async def run(self) -> str:
        life = await current_actor().ref(Account, current_actor().key).ask(Account.deposit, 1)
        await asyncio.sleep(600)
        return f"well in life {life}"


# --- parents ---


@durable_actor
class Parting(Diary):
    """A child that is awaited, and others whose parent ends before them."""

    @workflow
    async def run(self) -> int:
        spawn(Worker.run, "w-1", "cancelled", DAY)
        spawn.options(on_parent_close="abandon")(Worker.run, "w-2", "abandoned", DAY)
        spawn.options(on_parent_close="terminate")(Worker.run, "w-3", "terminated", DAY)
        self.told.append(await spawn(Worker.run, None, "awaited", 30).result())
        await asyncio.sleep(60)
        return len(self.told)


@durable_actor
class Hearing(Diary):
    """Hears of each end of its children, and brings some of them about."""

    @on_child_exit
    def gone(self, exit: ChildExit) -> None:  # noqa: A002  as the documentation has it
        self.told.append(f"{exit.id} has {exit.status}, {exit.error!r}")

    @workflow
    async def run(self) -> int:
        spawn(Worker.run, "w-1", "well")
        await asyncio.sleep(60)
        spawn(Clumsy.run, "c-1", 1)
        await asyncio.sleep(600)
        slow = spawn(Worker.run, "w-2", "slow", DAY)
        await asyncio.sleep(60)
        slow.cancel("it takes too long")
        try:
            await slow.result()
        except ActorCancelled as cancelled:
            self.told.append(cancelled.reason)
        slow = spawn(Worker.run, "w-2", "slow again", DAY)
        spawn(Worker.run, "w-2", "too many")
        await asyncio.sleep(60)
        slow.terminate("it still does")
        await asyncio.sleep(60)
        return len(self.told)


@durable_actor(supervise=OneForOne(max_restarts=2, within=timedelta(days=1), backoff=Backoff(initial=timedelta(minutes=1))))
class Supervising(Diary):
    """Children that fail, and begin again: one twice, one too often while it is awaited, and one too often while nobody looks."""

    @workflow
    async def run(self) -> int:
        self.told.append(await spawn(Clumsy.run, "c-1", 2).result())
        try:
            await spawn(Clumsy.run, "c-2", 9).result()
        except ChildFailed as failed:
            self.told.append(failed.error)
        try:
            spawn(Clumsy.run, "c-3", 9)
            await asyncio.sleep(DAY)
        finally:
            await self.charge("clean-up")
        return len(self.told)


class Sisters(Diary):
    """Three children, the second of which fails twice."""

    async def grow(self) -> list[str]:
        sisters = spawn(Patient.run, "p-1"), spawn(Clumsy.run, "c-1", 2), spawn(Patient.run, "p-2")
        return [await sister.result() for sister in sisters]


@durable_actor(supervise=OneForAll())
class Together(Sisters):
    """All of them begin again."""

    @workflow
    async def run(self) -> list[str]:
        return await self.grow()


@durable_actor(supervise=RestForOne(within=timedelta(hours=1)))
class Onwards(Sisters):
    """Those begin again that came after it."""

    @workflow
    async def run(self) -> list[str]:
        return await self.grow()


@durable_actor
class Heir(Diary):
    """Several lives, over which a child is kept; of two handlers that wait between them one ends in time."""

    @on_child_exit
    def gone(self, exit: ChildExit) -> None:  # noqa: A002
        self.told.append(f"{exit.id} has {exit.status}")

    @on_event
    async def serve(self, what: str, seconds: int = 10) -> None:
        await self.charge(what)
        await asyncio.sleep(seconds)
        self.told.append(f"{what} is served")

    @on_event
    async def linger(self, what: str) -> None:
        try:
            await self.serve(what, 7200)
        finally:
            await self.charge(f"the end of {what}")

    @workflow
    async def run(self, life: int = 0) -> str:
        if life == 0:
            spawn(Worker.run, "w-1", "slow", 600)
        await asyncio.sleep(60)
        self.told.append(f"life {life}")
        if life < 2:
            continue_as_new(life + 1)
        return await current_actor().ref(Worker.run, "w-1").result()


# --- cancels ---


@durable_actor
class Cancelled(Diary):
    """Somebody else cancels it, or terminates it, while it, a handler and a child wait: all of them clean up, or none."""

    @on_event
    async def linger(self, what: str) -> None:
        try:
            await asyncio.sleep(DAY)
        finally:
            await self.charge(what)

    @workflow
    async def run(self) -> None:
        try:
            await spawn(Worker.run, "w-1", "slow", DAY).result()
        except asyncio.CancelledError as cancelled:
            self.told.append(str(cancelled))
            raise
        finally:
            await self.charge("clean-up")
            await asyncio.sleep(2)
            await self.charge("the end")


@durable_actor
class Terminated(Diary):
    """Nothing is cleaned up, and what was done is not undone."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await book("flight")
            await spawn(Worker.run, "w-1", "slow", DAY).result()


@durable_actor
class Impatient(Diary):
    """Cancels a step that waits to be tried again, and others that run: by a time-out, and by hand."""

    @workflow
    async def run(self) -> int:
        begun = current_actor().now()
        try:
            async with asyncio.timeout(60):
                await hopeless.options(retry=PATIENT)("zero")
        except TimeoutError:
            self.told.append(f"after {(current_actor().now() - begun).total_seconds()} s")
        try:
            async with asyncio.timeout(60):
                await hang("one")
        except TimeoutError:
            await self.charge("too late")
        slow = asyncio.create_task(hang("two"))
        await self.charge("three")
        slow.cancel()
        await asyncio.wait([slow])
        self.told.append(f"cancelled: {slow.cancelled()}")
        return len(self.told)


# --- sagas ---


@durable_actor
class Undoing(Diary):
    """Sagas that are undone by an error, by a time-out, by a sister that fails; and one that ends well."""

    @workflow
    async def run(self) -> int:
        try:
            async with saga() as undo:
                self.told.append(await book("flight"))
                undo.push(unbook, "lounge")
                self.told += await asyncio.gather(book("room"), book("car"))
                await hopeless("dinner")
        except StepFailed as failed:
            self.told.append(failed.step)
        try:
            async with asyncio.timeout(60), saga():
                await book("museum")
                await book_slowly("opera")
        except TimeoutError:
            self.told.append("too late")
        try:
            async with saga():
                await asyncio.gather(book("bus"), book_slowly("ferry"), refuse("taxi"))
        except StepFailed as failed:
            self.told.append(failed.step)
        async with saga():
            await book("train")
        return len(self.told)


@durable_actor
class Undone(Diary):
    """A cancel while a saga waits, and another while it is undone."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await book("flight")
            async with saga() as undo:
                await book("room")
                undo.push(unbook_at_last, "lounge")
            await asyncio.sleep(DAY)


@durable_actor
class HalfUndone(Diary):
    """A compensation fails for good, and the others are run."""

    @workflow
    async def run(self) -> None:
        async with saga():
            await book("flight")
            await book_for_good("car")
            await book("room")
            raise LookupError("no money")


# --- messages ---


@durable_actor
class Mended(Diary):
    """Messages that are put aside, and put back once the cause is mended."""

    def __init__(self) -> None:
        super().__init__()
        self.is_mended = False

    @on_event
    def shaky(self, what: str) -> None:
        if not self.is_mended:
            raise LookupError(what)
        self.told.append(what)

    @on_event
    async def late(self, what: str) -> None:
        await self.charge(what)
        self.shaky(what)

    @on_signal
    def mend(self, by: str) -> None:
        self.is_mended = True
        self.told.append(f"{by} was here")


@durable_actor(on_poison="stop")
class Stopped(Diary):
    """A message that cannot be handled is its end."""

    @on_event
    def shaky(self, what: str) -> None:
        raise LookupError(what)

    @workflow
    async def run(self) -> None:
        spawn(Worker.run, "w-1", "slow", DAY)
        try:
            await asyncio.sleep(DAY)
        finally:
            await self.charge("clean-up")


# --- programs ---

MINUTE: Final = Pass(timedelta(minutes=1))
FAILURES: Final = Tell(Mended.shaky, "tea"), Tell(Mended.late, "milk"), Tell(Mended.shaky, "salt"), Pass(timedelta(hours=1))
SERVED: Final = Pass(timedelta(seconds=55)), Tell(Heir.serve, "tea"), Tell(Heir.linger, "milk"), Tell(Heir.serve, "salt")
PROGRAMS: Final = (
    Program(Parting),
    Program(Hearing),
    Program(Supervising),
    Program(Together),
    Program(Onwards),
    Program(Heir, SERVED),
    Program(Cancelled, (Tell(Cancelled.linger, "tea"), MINUTE, Cancel("enough"), Cancel("at once"))),
    Program(Terminated, (MINUTE, Terminate("enough"))),
    Program(Impatient),
    Program(Undoing),
    Program(Undone, (MINUTE, Cancel("enough"), Cancel("at once"))),
    Program(HalfUndone),
    Program(Mended, (*FAILURES, Redrive(), Pass(timedelta(hours=1)), Send(Mended.mend, "ada"), Redrive(), Redrive())),
    Program(Stopped, (Tell(Stopped.shaky, "tea"), Tell(Stopped.shaky, "milk"))),
)
CHILDREN: Final = Worker, Clumsy, Patient
