"""What was deployed with 0.1: never changed, since a store waits in this code. Each errand waits in a way of its own, which its key names.

Nothing here depends on the day, on chance or on the Python that runs it; who waits for `go` goes on when it is told.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from perdure.actors import (
    Backoff,
    ChildExit,
    CompensationFailed,
    OneForAll,
    OneForOne,
    Retry,
    SignalTimeout,
    StepFailed,
    cancel_timer,
    continue_as_new,
    current_actor,
    durable_actor,
    emit,
    on_child_exit,
    on_event,
    on_signal,
    on_timer,
    patched,
    query,
    saga,
    set_timer,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    wait_until,
    workflow,
)

GRACE: Final = timedelta(days=100)
ONCE: Final = Retry(max_attempts=1)
HOURLY: Final = Retry(max_attempts=1_000, initial=timedelta(hours=1), maximum=timedelta(hours=1))


class Trouble(Exception):
    """What actors fail with when they are told to."""


@dataclass
class Parcel:
    """Something of the user's own in states, arguments and results."""

    what: str
    labels: dict[str, list[int]] = field(default_factory=dict)


# --- steps: the host's resources say whether it is open, and have the book of what was done ---


def is_open() -> bool:
    return bool(step_info().resources["open"])


@step
async def quick(what: str) -> str:
    return f"{what} is done"


@step(retry=HOURLY)
async def long(what: str) -> Parcel:
    step_info().heartbeat({"half of": what})
    if not is_open():
        await asyncio.Event().wait()
    return Parcel(f"{what} is done at last", {"seen": [1, 2]})


@step(retry=HOURLY)
async def flaky(what: str) -> str:
    step_info().emit("tried", what)
    if not is_open():
        raise ConnectionError(what)
    return f"{what} has come through"


@step
async def unbook(what: str) -> None:
    step_info().resources["book"].append(f"{what} is given back")


@step(compensate=unbook)
async def book(what: str) -> str:
    return f"{what} is booked"


@step(retry=ONCE)
async def unbook_in_vain(what: str) -> None:
    raise ConnectionError(what)


@step(compensate=unbook_in_vain)
async def book_for_good(what: str) -> str:
    return f"{what} is booked for good"


# --- actors ---


class Diary:
    """Tells what has happened to it."""

    def __init__(self) -> None:
        self.told: list[str] = []

    @query
    def diary(self) -> list[str]:
        return self.told


@durable_actor(cancel_grace=GRACE, retry=ONCE)
class Clerk(Diary):
    """Serves whoever asks, when it is told to."""

    go = signal(str)

    @on_event
    async def serve(self, parcel: Parcel) -> str:
        word = await wait_for_signal(Clerk.go)
        self.told.append(f"served {parcel.what}")
        return f"{parcel.what}, {word}"

    @on_event
    def note(self, what: str) -> int:
        self.told.append(what)
        return len(self.told)

    @on_event
    def refuse(self, what: str) -> None:
        raise Trouble(what)


@durable_actor(cancel_grace=GRACE)
class Ward(Diary):
    """Somebody's child: ends as it is told."""

    go = signal(str)

    @workflow
    async def run(self) -> str:
        try:
            word = await wait_for_signal(Ward.go)
        except asyncio.CancelledError as cancelled:
            self.told.append(f"cancelled: {cancelled}")
            self.told.append(await wait_for_signal(Ward.go))
            raise
        errors: dict[str, type[Exception]] = {"fail": Trouble, "fail badly": ValueError, "fail for good": KeyError}
        if word in errors:
            raise errors[word](word)
        return f"a ward, told {word}"


@durable_actor(
    cancel_grace=GRACE,
    supervise=OneForOne(
        max_restarts=9,
        within=timedelta(days=1),
        backoff=Backoff(initial=timedelta(hours=1), maximum=timedelta(hours=1)),
        directives={ValueError: "escalate", KeyError: "stop"},
    ),
)
class Guardian(Diary):
    """Looks after its wards, whose keys begin with its own."""

    go = signal(str)

    @workflow
    async def run(self, wards: int) -> str:
        for number in range(wards):
            spawn(Ward.run, f"{current_actor().key} {number}")
        try:
            return await wait_for_signal(Guardian.go)
        finally:
            word = await wait_for_signal(Guardian.go)
            self.told.append(f"puts up its feet: {word}")

    @on_child_exit
    def gone(self, told: ChildExit) -> None:
        self.told.append(f"{told.id.key} is {told.status}")


@durable_actor(cancel_grace=GRACE, supervise=OneForAll(max_restarts=9, within=timedelta(days=1)))
class Team(Diary):
    """Has them all begin again when one of them fails."""

    go = signal(str)

    @workflow
    async def run(self, wards: int) -> str:
        for number in range(wards):
            spawn(Ward.run, f"{current_actor().key} {number}")
        return await wait_for_signal(Team.go)


@durable_actor(cancel_grace=GRACE, retry=ONCE, on_poison="stop")
class Touchy(Diary):
    """Fails with a message that cannot be handled."""

    go = signal(str)

    @workflow
    async def run(self) -> str:
        try:
            return await wait_for_signal(Touchy.go)
        finally:
            self.told.append(await wait_for_signal(Touchy.go))

    @on_event
    def refuse(self, what: str) -> None:
        raise Trouble(what)


@durable_actor(retry=HOURLY)
class Bomb(Diary):
    """Ends its host at the second attempt, as long as it is closed."""

    @on_event
    def light(self, what: str) -> None:
        resources = current_actor().resources
        if not resources["open"]:
            if current_actor().attempt == 2:
                os._exit(resources["fuse"])
            raise ConnectionError(what)
        self.told.append(f"{what} at attempt {current_actor().attempt}")


@durable_actor(retention=timedelta(hours=1))
class Brief(Diary):
    """Is forgotten when it has been over for an hour."""

    @workflow
    async def run(self, what: str) -> str:
        return f"{what} in brief"

    @on_event
    def note(self, what: str) -> int:
        self.told.append(what)
        return len(self.told)


@durable_actor(cancel_grace=GRACE)
class Errand(Diary):
    """Does what its key says."""

    go = signal(str)
    never = signal(str)

    def __init__(self) -> None:
        super().__init__()
        self.queue = asyncio.Queue[str](maxsize=9)

    @workflow
    async def run(self, again: int = 0) -> str:
        plan: Callable[[], Awaitable[str]] = getattr(self, current_actor().key.split(",")[0])
        return await (self.goes_on(again) if again else plan())

    @on_event
    async def put(self, what: str) -> int:
        await self.queue.put(what)
        return self.queue.qsize()

    @on_signal
    def hear(self, what: str) -> None:
        self.told.append(f"heard {what}")

    @on_timer
    def tick(self) -> None:
        self.told.append("tick")

    @on_timer
    def tock(self) -> None:
        self.told.append("tock")

    async def in_a_step(self) -> str:
        self.told.append(await quick("tea"))
        return (await long("milk")).what

    async def after_a_failure(self) -> str:
        return await flaky("tea")

    async def for_time(self) -> str:
        async with asyncio.timeout(86_400 * 20):
            await asyncio.sleep(86_400 * 14)
        return "time has passed"

    async def after_some_time(self) -> str:
        await asyncio.sleep(3 * 3_600)
        return await wait_for_signal(Errand.go)

    async def for_a_signal(self) -> str:
        return await wait_for_signal(Errand.go)

    async def for_a_signal_in_time(self) -> str:
        try:
            return await wait_for_signal(Errand.never, timeout=timedelta(days=3))
        except SignalTimeout:
            return "nobody came"

    async def for_a_condition(self) -> str:
        try:
            await wait_until(lambda: len(self.told) >= 2, timeout=timedelta(days=5))
        except TimeoutError:
            return "one was heard"
        return "two were heard"

    async def for_an_answer(self) -> str:
        return await current_actor().ref(Clerk, "clerk").ask(Clerk.serve, Parcel("tea"))

    async def for_a_result(self) -> str:
        return await current_actor().ref(Errand.run, "for_a_signal").result()

    async def for_a_late_result(self) -> str:
        return await current_actor().ref(Late.run, "late").result()

    async def for_a_child(self) -> str:
        return await spawn(Ward.run, "ward").result()

    async def with_a_late_child(self) -> str:
        spawn.options(on_parent_close="abandon")(Late.run, "late child", 0)
        return await wait_for_signal(Errand.go)

    async def in_a_saga(self) -> str:
        try:
            async with saga():
                self.told.append(await book("tea"))
                word = await wait_for_signal(Errand.go)
                raise Trouble(word)
        except Trouble as trouble:
            return f"undone: {trouble}"

    async def undone_in_vain(self) -> str:
        try:
            async with saga():
                self.told.append(await book_for_good("tea"))
                raise Trouble("what was booked is not wanted")
        except CompensationFailed as failed:
            self.told.extend(str(error.__class__.__name__) for error in failed.errors)
        except Trouble:
            self.told.append("in vain")
        return await wait_for_signal(Errand.go)

    async def on_a_new_way(self) -> str:
        self.told.append("the new way" if patched("a new way") else "the old way")
        return await wait_for_signal(Errand.go)

    async def at_a_queue(self) -> str:
        taken = []
        async with asyncio.TaskGroup() as tasks:
            waiting = [tasks.create_task(self.take(name)) for name in "xyz"]
            word = await wait_for_signal(Errand.go)
            for number in range(3):
                await self.queue.put(f"{word} {number}")
            taken = [await task for task in waiting]
        return ", ".join(taken)

    async def take(self, name: str) -> str:
        what = await self.queue.get()
        return f"{name} has {await quick(what)}"

    async def cleaning_up(self) -> str:
        try:
            return await wait_for_signal(Errand.go)
        except asyncio.CancelledError as cancelled:
            self.told.append(f"cancelled: {cancelled}")
            self.told.append(await wait_for_signal(Errand.go))
            raise

    async def with_everything(self) -> str:
        me = current_actor()
        clerk, others = me.ref(Clerk, "another clerk"), [spawn(Ward.run, f"other ward {number}") for number in range(2)]
        clerk.send_event(Clerk.note, f"{me.uuid4().version}")
        self.told += [f"{len(await clerk.query(Clerk.diary))}", (await clerk.info()).status]
        await me.start(Brief.run, "started", "a start")
        emit("said", Parcel("hello"))
        set_timer(Errand.tick, after=timedelta(hours=1), every=timedelta(days=7))
        set_timer(Errand.tock, after=timedelta(hours=1))
        cancel_timer(Errand.tock)
        await others[0].cancel("enough")
        await others[1].terminate("at once")
        try:
            await quick.options(timeout=timedelta(minutes=1))("everything")
            return await wait_for_signal(Errand.go)
        except StepFailed:
            return "too slow"

    async def again(self) -> str:
        return await self.goes_on(1)

    async def goes_on(self, life: int) -> str:
        word = await wait_for_signal(Errand.go)
        if life == 3:
            return f"life {life}, told {word}"
        self.told.append(f"life {life}")
        return continue_as_new(life + 1)


# --- types with several versions ---


@durable_actor(name="Account")
class Account1(Diary):
    """Idle since the first deploy."""

    @on_event
    def add(self, cents: int) -> int:
        self.told.append(str(cents))
        return len(self.told)


@durable_actor(name="Account", version=2, codec="msgspec")
class Account2:
    """Has no way from the first version: both are hosted."""

    def __init__(self) -> None:
        self.cents = 0

    @on_event
    def add(self, cents: int) -> int:
        self.cents += cents
        return self.cents

    @query
    def diary(self) -> list[str]:
        return [f"{self.cents} cents"]


@durable_actor(name="Deal")
class Deal1(Diary):
    """Waits for the first of two words."""

    go = signal(str)

    @workflow
    async def run(self, what: str) -> str:
        self.told.append(await quick(what))
        self.told.append(await wait_for_signal(Deal1.go))
        return "version 1"


@durable_actor(name="Deal", version=2, replays=(1,))
class Deal2(Diary):
    """Goes on where the first version waits, and has a second word to wait for."""

    go = signal(str)

    @workflow
    async def run(self, what: str) -> str:
        self.told.append(await quick(what))
        self.told.append(await wait_for_signal(Deal2.go))
        self.told.append(await wait_for_signal(Deal2.go))
        return "version 2"


@durable_actor(name="Late", retry=ONCE, supervise=OneForOne(max_restarts=1, within=timedelta(days=1)))
class Late(Diary):
    """Its code was not there at the second deploy, so that it stands still, and whatever is sent to it waits."""

    go = signal(str)

    @workflow
    async def run(self, wards: int) -> str:
        for number in range(wards):
            spawn(Ward.run, f"late ward {number}")
        word = await wait_for_signal(Late.go)
        return f"late: {word}, {(await long('tea')).what}"

    @on_event
    def note(self, what: str) -> int:
        self.told.append(what)
        return len(self.told)

    @on_signal
    def hear(self, what: str) -> None:
        self.told.append(f"heard {what}")

    @on_child_exit
    def gone(self, told: ChildExit) -> None:
        self.told.append(f"{told.id.key} is {told.status}")


@durable_actor(name="Late", version=2, retry=ONCE)
class Late2(Late):
    """It has the same handlers, and does not replay the first one."""

    @workflow
    async def run(self, wards: int) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return f"{wards} at last"


ALWAYS: Final[tuple[Any, ...]] = Clerk, Ward, Guardian, Team, Touchy, Bomb, Brief, Errand
FIRST: Final = (*ALWAYS, Account1, Deal1, Late)
SECOND: Final = (*ALWAYS, Account1, Account2, Deal2, Late2)
ACTORS: Final = (*ALWAYS, Account1, Account2, Deal2, Late, Late2)
