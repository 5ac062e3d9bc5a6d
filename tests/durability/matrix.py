"""Programs of actors, one for each durable primitive: what each does, and what is sent to it on the way.

None of them depends on when a crash comes, nor on who runs it: whatever is told, returned or emitted is the same each time.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final

import anyio
import anyio.abc
from perdure.actors import (
    ActorFailed,
    Retry,
    SignalTimeout,
    StepFailed,
    cancel_timer,
    continue_as_new,
    current_actor,
    durable_actor,
    emit,
    on_event,
    on_signal,
    on_timer,
    query,
    set_timer,
    signal,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)

from .script import Ask, Pass, Program, Send, Tell

DAY: Final = 86_400.0
PATIENT: Final = Retry(max_attempts=9, initial=timedelta(hours=1), maximum=timedelta(hours=2))


# --- steps ---


def note_this(undone: str = "") -> None:
    info = step_info()
    info.resources["ledger"].note(info.idempotency_key, undone)


@step
async def charge(what: str) -> str:
    note_this()
    return f"{what} is charged"


@step
def lookup(what: str) -> str:
    note_this()
    return f"{what} is found"


@step
async def flaky(what: str) -> str:
    if step_info().attempt <= 2:
        raise ConnectionError(what)
    note_this()
    return f"{what} at last"


@step
async def hopeless(what: str) -> str:
    raise ConnectionError(what)


# --- actors ---


class Diary:
    """Tells what has happened to it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told

    async def charge(self, what: str) -> None:
        self.told.append(await charge(what))


@durable_actor
class Sequence(Diary):
    """One step after the other."""

    @workflow
    async def run(self) -> int:
        await self.charge("one")
        self.told.append(await lookup("two"))
        await self.charge("three")
        return len(self.told)


@durable_actor
class Retried(Diary):
    """Steps that fail."""

    @workflow
    async def run(self) -> int:
        self.told.append(await flaky("one"))
        try:
            await hopeless("two")
        except StepFailed as failed:
            self.told.append(f"{failed.failed} attempts at two")
        await self.charge("three")
        return len(self.told)


@durable_actor
class Sleeper(Diary):
    """Time passes."""

    @workflow
    async def run(self) -> int:
        begun = current_actor().now()
        for seconds in (0.1, 0.0, 14 * DAY, 1e-3):
            await asyncio.sleep(seconds)
            self.told.append(f"after {(current_actor().now() - begun).total_seconds():.3f} s")
        await self.charge("sleep")
        return len(self.told)


@durable_actor
class Hurried(Diary):
    """Steps within a time."""

    @workflow
    async def run(self) -> list[str]:
        async with asyncio.timeout(60):
            await self.charge("in time")
        try:
            async with asyncio.timeout(60):
                await flaky.options(retry=PATIENT)("too late")
        except TimeoutError:
            self.told.append("too late")
        # CPython 3.11 asks for the first of these a round of its loop later than 3.12 does.
        return [*await asyncio.gather(asyncio.wait_for(charge("again"), 60), charge("and again"), asyncio.wait_for(flaky("at once"), 60))]


@durable_actor
class Gathering(Diary):
    """Steps beside each other."""

    @workflow
    async def run(self) -> list[str]:
        found = await asyncio.gather(charge("one"), flaky("two"), asyncio.sleep(5, "three"), lookup("four"))
        done, pending = await asyncio.wait([asyncio.create_task(self.charge("five")), asyncio.create_task(asyncio.sleep(5))], timeout=1)
        self.told.append(f"{len(done)} done, {len(pending)} pending")
        await asyncio.wait(pending)
        return [*found]


@durable_actor
class Group(Diary):
    """A group of tasks, one of which fails, while others clean up."""

    @workflow
    async def run(self) -> int:
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(3):
                    tasks.create_task(self.work(f"task {number}"))
                tasks.create_task(self.fail())
        except* StepFailed as group:
            self.told.append(f"{len(group.exceptions)} failed")
        return len(self.told)

    async def work(self, name: str) -> None:
        try:
            await self.charge(name)
            await asyncio.sleep(DAY)
        finally:
            await self.charge(f"the end of {name}")

    async def fail(self) -> None:
        await hopeless("group")


@durable_actor
class Waiting(Diary):
    """Signals: two that come early, one that comes too late, and one in time."""

    approved = signal(str)

    @workflow
    async def run(self) -> int:
        await asyncio.sleep(60)
        for _ in range(2):
            self.told.append(await wait_for_signal(Waiting.approved))
        try:
            await wait_for_signal(Waiting.approved, timeout=timedelta(hours=1))
        except SignalTimeout:
            self.told.append("nobody came")
        self.told.append(await wait_for_signal(Waiting.approved, timeout=timedelta(days=2)))
        return len(self.told)


@durable_actor
class Condition(Diary):
    """Waits until something is so."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    @on_event
    def add(self, by: int) -> int:
        self.total += by
        return self.total

    @on_signal
    def hurry(self, by: int) -> None:
        self.total += by

    @workflow
    async def run(self) -> int:
        await asyncio.gather(self.reach(3), self.reach(6))
        try:
            await wait_until(lambda: self.total > 100, timeout=timedelta(hours=1))
        except TimeoutError:
            self.told.append("never")
        return self.total

    async def reach(self, total: int) -> None:
        await wait_until(lambda: self.total >= total)
        await self.charge(str(total))


@durable_actor
class Queued(Diary):
    """A queue, a lock and an event between events and the workflow."""

    def __init__(self) -> None:
        super().__init__()
        self.orders = asyncio.Queue[str](maxsize=2)
        self.lock = asyncio.Lock()
        self.closed = asyncio.Event()

    @on_event
    async def order(self, what: str) -> int:
        await self.orders.put(what)
        return self.orders.qsize()

    @on_event
    def close(self) -> None:
        self.closed.set()

    @workflow
    async def run(self) -> list[str]:
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(self.work(name)) for name in "xy"]
            await self.closed.wait()
            await self.orders.join()
            for worker in workers:
                worker.cancel()
        return sorted(self.told)

    async def work(self, name: str) -> None:
        while True:
            what = await self.orders.get()
            async with self.lock:
                await self.charge(what)
            await asyncio.sleep(10)
            self.orders.task_done()


@durable_actor
class Account:
    """Somebody to talk to."""

    def __init__(self) -> None:
        self.balance = 0

    @on_event
    async def deposit(self, amount: int) -> int:
        if amount < 0:
            raise ValueError("it is negative")
        self.balance += amount
        await asyncio.sleep(30)
        return self.balance

    @query
    def worth(self) -> int:
        return self.balance

    @workflow
    async def run(self, years: int) -> int:
        await charge(f"{years} years")
        if years < 0:
            raise ValueError("it is negative")
        await asyncio.sleep(years * DAY)
        return self.balance * years


@durable_actor
class Asking(Diary):
    """Asks another actor."""

    @workflow
    async def run(self) -> list[int]:
        account = current_actor().ref(Account, "b-1")
        found = await asyncio.gather(account.ask(Account.deposit, 1), account.ask(Account.deposit, 2))
        account.send_event(Account.deposit, 4)
        try:
            await account.ask(Account.deposit, -1)
        except ValueError as error:
            self.told.append(str(error))
        return [*found, await account.ask(Account.deposit, 8)]


@durable_actor
class Starting(Diary):
    """Starts others, and awaits what they come to."""

    @workflow
    async def run(self) -> list[int]:
        me = current_actor()
        await me.ref(Account, "b-1").ask(Account.deposit, 100)
        first = await me.start(Account.run, "b-1", 3)
        await me.start(Account.run, "b-2", -1)
        try:
            await me.ref(Account.run, "b-2").result()
        except ActorFailed as failed:
            self.told.append(failed.error)
        return [await first.result(), await first.result()]


@durable_actor
class Reading(Diary):
    """Reads another actor."""

    @workflow
    async def run(self) -> int:
        account = current_actor().ref(Account, "b-1")
        for amount in (1, 2):
            self.told.append(f"{await account.query(Account.worth)}")
            await account.ask(Account.deposit, amount)
            info = await account.info()
            self.told.append(f"{info.status}, event {info.cursor.event}")
        return await account.query(Account.worth)


@durable_actor
class Ticking(Diary):
    """Timers with handlers: one that comes again and again, one that is set anew, one that is cancelled."""

    @workflow
    async def run(self) -> int:
        set_timer(Ticking.tick, every=timedelta(minutes=1))
        set_timer(Ticking.remind, after=timedelta(seconds=1))
        set_timer(Ticking.remind, after=timedelta(seconds=150))
        set_timer(Ticking.never, after=timedelta(hours=1))
        await wait_until(lambda: self.told.count("tick") == 3)
        cancel_timer(Ticking.tick)
        cancel_timer(Ticking.never)
        await asyncio.sleep(DAY)
        return len(self.told)

    @on_timer
    def tick(self) -> None:
        self.told.append("tick")

    @on_timer
    async def remind(self) -> None:
        await self.charge("reminder")

    @on_timer
    def never(self) -> None:
        self.told.append("never")


@durable_actor
class Emitting(Diary):
    """A stream of items."""

    @workflow
    async def run(self) -> int:
        for number in range(3):
            emit("charged", await charge(str(number)))
            emit("number", number)
            await asyncio.sleep(1)
        return 3


@durable_actor
class Renewed(Diary):
    """Several lives, over which events and signals are carried."""

    approved = signal(str)

    @on_event
    async def note(self, what: str) -> None:
        await self.charge(what)

    @workflow
    async def run(self, life: int = 0) -> int:
        await self.charge(f"life {life}")
        await asyncio.sleep(60)
        if life < 2:
            continue_as_new(life + 1)
        self.told.append(await wait_for_signal(Renewed.approved))
        return life


@durable_actor
class Serving(Diary):
    """Handlers that wait, one after the other, and no workflow."""

    @on_event
    async def serve(self, what: str) -> str:
        self.told.append(f"{what} begins")
        found = await charge(what)
        await asyncio.sleep(60)
        self.told.append(f"{what} ends")
        return found

    @on_event
    async def fail(self, what: str) -> None:
        await self.charge(what)
        raise LookupError(what)


@durable_actor
class Streaming(Diary):
    """anyio: a memory stream between tasks, and a scope that is left in time."""

    @workflow
    async def run(self) -> int:
        send, receive = anyio.create_memory_object_stream[str](1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.produce, send)
            async with receive:
                async for item in receive:
                    await self.charge(item)
        with anyio.move_on_after(60) as scope:
            await flaky.options(retry=PATIENT)("too late")
        with anyio.CancelScope(shield=True):
            await self.charge(f"cancelled: {scope.cancelled_caught}")
        return len(self.told)

    async def produce(self, send: anyio.abc.ObjectSendStream[str]) -> None:
        async with send:
            for item in ("one", "two", "three"):
                await send.send(item)
                await anyio.sleep(1)


@durable_actor
class Failing(Diary):
    """A workflow that raises, once it has cleaned up."""

    @workflow
    async def run(self) -> None:
        try:
            async with asyncio.timeout(60):
                await asyncio.Event().wait()
        finally:
            await self.charge("clean-up")


@durable_actor
class Troubled(Diary):
    """Messages that fail while the workflow waits: at once, at first, after a while."""

    @workflow
    async def run(self) -> int:
        await self.charge("one")
        await asyncio.sleep(DAY)
        return len(self.told)

    @on_event
    def shaky(self, what: str) -> None:
        self.told.append(what)
        emit("tried", what)
        if current_actor().attempt < 3:
            raise ConnectionError(what)

    @on_event
    async def late(self, what: str) -> None:
        await self.charge(what)
        raise ConnectionError(what)

    @on_signal
    def broken(self, what: str) -> None:
        self.told.append(what)
        raise ConnectionError(what)


@durable_actor
class Closing(Diary):
    """A workflow that ends while a handler and a task of its own wait, and more is to come."""

    @workflow
    async def run(self) -> str:
        stray = asyncio.create_task(self.linger("a task"))
        await asyncio.sleep(60)
        return "closed" if not stray.done() else "late"

    @on_event
    async def linger(self, what: str) -> None:
        await self.charge(what)
        try:
            await asyncio.sleep(DAY)
        finally:
            self.told.append(f"{what} ends")


# --- programs ---

ADA_AND_BOB: Final = Send(Waiting.approved, "ada"), Send(Waiting.approved, "bob")
ORDERS: Final = tuple(Ask(Queued.order, (what,)) for what in ("tea", "milk", "salt", "flour", "rice"))
AN_HOUR_LATER: Final = Pass(timedelta(hours=1)), Tell(Troubled.shaky, "rice")
PROGRAMS: Final = (
    Program(Sequence),
    Program(Retried),
    Program(Sleeper),
    Program(Hurried),
    Program(Gathering),
    Program(Group),
    Program(Waiting, (*ADA_AND_BOB, Pass(timedelta(hours=2)), Send(Waiting.approved, "cid"))),
    Program(Condition, (Ask(Condition.add, (2,)), Ask(Condition.add, (2,)), Send(Condition.hurry, 2))),
    Program(Queued, (*ORDERS, Pass(timedelta(seconds=15)), Ask(Queued.close))),
    Program(Asking),
    Program(Starting),
    Program(Reading),
    Program(Ticking),
    Program(Emitting),
    Program(Renewed, (Ask(Renewed.note, ("early",)), Send(Renewed.approved, "ada"), Pass(timedelta(seconds=90)))),
    Program(Serving, (Ask(Serving.serve, ("tea",)), Ask(Serving.serve, ("milk",)), Ask(Serving.fail, ("salt",)))),
    Program(Streaming),
    Program(Failing),
    Program(Troubled, (Tell(Troubled.shaky, "tea"), Tell(Troubled.late, "milk"), Send(Troubled.broken, "salt"), *AN_HOUR_LATER)),
    Program(Closing, (Tell(Closing.linger, "one"), Tell(Closing.linger, "two"))),
)
