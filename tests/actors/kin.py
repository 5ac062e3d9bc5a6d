"""Parents and children that end as they are told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from perdure.actors import (
    ActorRef,
    ChildExit,
    ChildFailed,
    RuntimeNotRunning,
    continue_as_new,
    current_actor,
    durable_actor,
    on_child_exit,
    on_event,
    on_signal,
    on_timer,
    query,
    send_signal,
    set_timer,
    signal,
    spawn,
    wait_for_signal,
    workflow,
)
from perdure.actors._children import OnParentClose
from perdure.actors.testing import World
from perdure.storage import CommitUncertain

T = TypeVar("T")


class Trouble(Exception):
    """What actors are told to fail with."""


@durable_actor
class Child:
    """Ends as its plan says, or as it is told if that is to wait; notes what it was cancelled for, and may take its time over that."""

    word = signal(str)
    rest = signal()

    def __init__(self) -> None:
        self.heard = ""

    @workflow
    async def run(self, plan: str = "wait") -> str:
        try:
            word = await wait_for_signal(Child.word) if plan in {"wait", "linger"} else plan
        except asyncio.CancelledError as cancelled:
            self.heard = str(cancelled)
            if plan == "linger":
                await wait_for_signal(Child.rest)
            raise
        if word == "fail":
            raise Trouble(word)
        return word

    @query
    def reason(self) -> str:
        return self.heard


@durable_actor
class Parent:
    """Has one child, and ends as it is told: await it, fail, go on as new, or return."""

    word = signal(str)

    def __init__(self) -> None:
        self.exits: list[ChildExit] = []
        self.spawned: list[str] = []

    @workflow
    async def run(self, key: str | None, plan: str = "wait", on_close: OnParentClose = "cancel") -> str:
        child = spawn.options(on_parent_close=on_close)(Child.run, key, plan)
        self.spawned.append(child.id.key)
        word = await wait_for_signal(Parent.word)
        if word == "fail":
            raise Trouble(word)
        if word == "again":
            continue_as_new(key, "again", on_close)
        if word == "careful":
            return await self.fate(child.result())
        return await child.result() if word == "await" else word

    async def fate(self, result: Awaitable[str]) -> str:
        try:
            return await result
        except ChildFailed as failed:
            return f"{failed.child} of {failed.parent}: {failed.__cause__!r}"

    @on_child_exit
    def gone(self, told: ChildExit) -> None:
        self.exits.append(told)

    @query
    def heard(self) -> list[ChildExit]:
        return self.exits

    @query
    def keys(self) -> list[str]:
        return self.spawned


@durable_actor
class Grandparent:
    """Has a child that has one."""

    @workflow
    async def run(self) -> str:
        return await spawn(Parent.run, "parent", "child").result()


@durable_actor
class Matron:
    """Spawns wherever one can, and has no workflow."""

    due: str = ""

    @on_event
    def bear(self, key: str, plan: str = "wait") -> None:
        spawn(Child.run, key, plan)

    @on_event
    async def raise_one(self, key: str) -> str:
        return await spawn(Child.run, key, "wait").result()

    @on_event
    def miscarry(self, key: str) -> None:
        spawn(Child.run, key)
        raise Trouble("after all")

    @on_signal
    def bear_at_once(self, key: str) -> None:
        spawn(Child.run, key)

    @on_event
    def bear_later(self, key: str) -> None:
        self.due = key
        set_timer(Matron.bear_now, after=timedelta(hours=1))

    @on_timer
    def bear_now(self) -> None:
        spawn(Child.run, self.due)

    @on_event
    def stray(self, how: str) -> None:
        astray: dict[str, tuple[Any, ...]] = {
            "no workflow": (Child.reason, "a"),
            "no actor": (current_actor, "a"),
            "no plan": (Child.run, "a", 1, 2),
            "no data": (Child.run, "a", threading.Lock()),
            "no key": (Child.run, "\ud800"),
            "long key": (Child.run, "k" * 2_000),
        }
        spawn(*astray[how])

    @query
    def imagine(self) -> str:
        return spawn(Child.run, "a").id.key


FAMILY = (Parent, Child, Grandparent, Matron)


async def tell(world: World, key: str, word: str) -> None:
    """Tell a child how to end, and let happen what follows."""
    await send_signal(world.ref(Child, key), Child.word, word)
    await world.settled()


async def bid(world: World, key: str, word: str) -> None:
    """The same for a parent."""
    await send_signal(world.ref(Parent, key), Parent.word, word)
    await world.settled()


async def status(ref: ActorRef[Any]) -> str:
    """An actor's status."""
    return (await ref.info()).status


async def surely(act: Callable[[], Awaitable[T]]) -> T:
    """Do it until it is known to be done, whoever crashes meanwhile."""
    while True:
        try:
            return await act()
        except (CommitUncertain, RuntimeNotRunning):
            await asyncio.sleep(0)


async def fate(result: Awaitable[Any]) -> Any:
    """What comes of it: a value or an error."""
    try:
        return await result
    except Exception as error:  # noqa: BLE001  whatever comes of it
        return error
