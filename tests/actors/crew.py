"""Supervisors of every policy, and workers that fail as they are told; what their steps do is in a journal."""

from __future__ import annotations

from typing import Any

from perdure.actors import (
    ChildExit,
    ChildFailed,
    Retry,
    continue_as_new,
    current_actor,
    durable_actor,
    on_child_exit,
    on_event,
    on_signal,
    query,
    saga,
    send_signal,
    signal,
    spawn,
    step,
    step_info,
    wait_for_signal,
    workflow,
)
from perdure.actors._children import OnParentClose
from perdure.actors._policy import Supervision
from perdure.actors.testing import World

from .kin import Trouble


class WorseTrouble(Trouble):
    """What is nearer than that."""


ERRORS: dict[str, type[Exception]] = {"fail": Trouble, "fail worse": WorseTrouble, "fail oddly": ValueError}


@step
async def undo(what: str) -> None:
    """Write down that it is undone."""
    journal()[step_info().idempotency_key] = f"{what} undone"


@step(compensate=undo)
async def note(what: str) -> None:
    """Write it down, once for each asking."""
    journal()[step_info().idempotency_key] = what


def journal() -> dict[str, str]:
    """What steps have written down, by their idempotency keys: it outlives hosts."""
    lines: dict[str, str] = step_info().resources["journal"]
    return lines


@durable_actor(retry=Retry(max_attempts=1))
class Worker:
    """Does what it is told, and cleans up behind itself."""

    word = signal(str)

    def __init__(self) -> None:
        self.tasks: list[str] = []

    @workflow
    async def run(self, greeting: str = "") -> str:
        key = current_actor().key
        async with saga():
            await note(f"{key} begins")
            try:
                word = await wait_for_signal(Worker.word)
                if word in ERRORS:
                    raise ERRORS[word](word)
            finally:
                await note(f"{key} cleans up")
        return greeting + word

    @on_event
    def add(self, task: str) -> int:
        if task in ERRORS:
            raise ERRORS[task](task)
        self.tasks.append(task)
        return len(self.tasks)

    @on_signal
    def hurry(self, task: str) -> None:
        self.tasks.append(task)

    @query
    def all(self) -> list[str]:
        return self.tasks


@durable_actor(name="Worker", on_poison="stop", retry=Retry(max_attempts=1))
class Touchy(Worker):
    """Fails with a message that cannot be handled."""


class Boss:
    """Has a worker of each key, and hears of their ends."""

    word = signal(str)

    def __init__(self) -> None:
        self.exits: list[ChildExit] = []

    @workflow
    async def run(self, keys: str, on_close: OnParentClose = "cancel") -> str:
        workers = [spawn.options(on_parent_close=on_close)(Worker.run, key, "well ") for key in keys]
        word = await wait_for_signal(Boss.word)
        if word == "again":
            continue_as_new("")
        if word != "await":
            return word
        try:
            return await workers[0].result()
        except ChildFailed as failed:
            return f"in spite of {failed.__cause__!r}"

    @on_child_exit
    def gone(self, told: ChildExit) -> None:
        self.exits.append(told)

    @query
    def heard(self) -> list[ChildExit]:
        return self.exits


class Chief:
    """Has a boss."""

    @workflow
    async def run(self, keys: str) -> str:
        return await spawn(Boss.run, "boss", keys).result()


def led(supervise: Supervision | None, name: str = "Boss", of: type = Boss) -> type:
    """The type of a supervisor with that policy."""
    made: type = durable_actor(name=name, supervise=supervise)(type(name, (of,), {"__module__": __name__}))
    return made


async def tell(world: World, key: str, *words: str) -> None:
    """Tell a worker what to do, a word for each life, and let happen what follows at this time."""
    for word in words:
        await send_signal(world.ref(Worker, key), Worker.word, word)
        await world.settled()


async def bid(world: World, word: str) -> None:
    """Tell the boss."""
    await send_signal(world.ref(Boss.run, "boss"), Boss.word, word)
    await world.settled()


async def restarts(world: World, key: str = "boss", of: Any = Boss) -> list[int]:
    """How often each child of the boss has begun again."""
    return [child.restarts for child in (await world.ref(of.run, key).info()).children]


async def lives(world: World, keys: str) -> list[str]:
    """Which life each worker leads."""
    return [(await world.ref(Worker, key).info()).incarnation for key in keys]
