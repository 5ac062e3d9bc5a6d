"""An idempotency key means the same at every moment of its message's life: under way, failed, ended, put aside, on every kind of call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from perdure.actors import (
    ActorCancelled,
    ActorCompleted,
    ActorRef,
    IdempotencyMismatch,
    MailboxFull,
    Retry,
    RuntimeNotRunning,
    StepFailed,
    durable_actor,
    on_event,
    on_signal,
    query,
    send_signal,
    signal,
    step,
    wait_for_signal,
    workflow,
)
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("max_active", [0, 10_000])]


@step(retry=Retry(max_attempts=1))
async def break_down() -> None:
    raise ConnectionError("the server is away")


@durable_actor(mailbox_limit=3, retry=Retry(max_attempts=1))
class Desk:
    """Notes each time that something of it begins."""

    go = signal(str)

    def __init__(self) -> None:
        self.begun: list[str] = []

    @workflow
    async def run(self, note: str) -> str:
        self.begun.append(note)
        return await wait_for_signal(Desk.go)

    @on_event
    async def work(self, a: int, *, b: int = 0, c: int = 0) -> str:
        self.begun.append("work")
        said = await wait_for_signal(Desk.go)
        return f"{a} {b} {c} {said}"

    @on_event
    async def fail(self, how: str) -> None:
        self.begun.append(how)
        await (break_down() if how == "step" else asyncio.sleep(1))
        raise LookupError(how)

    @on_event
    def add(self) -> int:
        self.begun.append("add")
        return len(self.begun)

    @on_signal
    def note(self, text: str) -> None:
        self.begun.append(text)

    @query
    def story(self) -> list[str]:
        return self.begun


@durable_actor(mailbox_limit=3, on_poison="quarantine")
class Vase:
    """Breaks."""

    @on_signal
    def fall(self) -> None:
        raise ValueError("broken")


@durable_actor
class Visitor:
    """Does everything twice under one key."""

    @on_event
    async def ask(self, desk: ActorRef[Desk]) -> list[str]:
        keyed = desk.options(idempotency_key="k")
        return [await keyed.ask(Desk.work, 1, b=2), *await asyncio.gather(*(keyed.ask(Desk.work, 1, b=2) for _ in range(2)))]

    @on_event
    def send(self, desk: ActorRef[Desk]) -> None:
        for _ in range(2):
            desk.options(idempotency_key="e").send_event(Desk.add)
            send_signal(desk.options(idempotency_key="s"), Desk.note, "noted")

    @on_event
    def press(self, desk: ActorRef[Desk]) -> None:
        desk.options(idempotency_key="k").send_event(Desk.add)


async def waiting(world: World, work: Awaitable[Any]) -> asyncio.Future[Any]:
    """Something under way, as far as it gets by itself."""
    begun = asyncio.ensure_future(work)
    await world.settled()
    return begun


@pytest.mark.promise("keys-happen-once")
async def test_a_handler_that_waits_over_a_crash_is_found_again(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, max_active=max_active)
    desk = world.ref(Desk, "d")
    keyed = desk.options(idempotency_key="k")
    lost = await waiting(world, keyed.ask(Desk.work, 1, b=2, c=3))
    await world.restart()

    again = [await waiting(world, keyed.ask(Desk.work, a=1, c=3, b=2)), await waiting(world, keyed.ask(Desk.work, 1, b=2, c=3))]
    with pytest.raises(IdempotencyMismatch):
        await keyed.ask(Desk.work, 1)
    await send_signal(desk, Desk.go, "now")

    assert await asyncio.gather(*again) == ["1 2 3 now"] * 2
    assert isinstance(lost.exception(), RuntimeNotRunning)
    assert await desk.query(Desk.story) == ["work"]


@pytest.mark.promise("done-after-a-wait-is-done")
@pytest.mark.parametrize(("how", "error"), [("step", StepFailed), ("late", LookupError)])
async def test_what_failed_after_it_waited_fails_alike_again(
    make_world: MakeWorld, max_active: int, how: str, error: type[Exception]
) -> None:
    world = await make_world(Desk, max_active=max_active)
    keyed = world.ref(Desk, "d").options(idempotency_key="k")
    asking = await waiting(world, keyed.ask(Desk.fail, how))
    await world.run_until_idle()

    first = asking.exception()
    await world.restart()
    with pytest.raises(error) as again:
        await keyed.ask(Desk.fail, how)

    assert repr(again.value) == repr(first)
    assert await keyed.query(Desk.story) == [how]


async def test_what_an_end_did_to_a_message_is_its_outcome(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, max_active=max_active)
    desk = await world.options(idempotency_key="s").start(Desk.run, "d", "begun")
    working, queued = desk.options(idempotency_key="w"), desk.options(idempotency_key="q")
    asked = [await waiting(world, working.ask(Desk.work, 1)), await waiting(world, queued.ask(Desk.add))]
    await desk.cancel("enough")
    await world.settled()

    for _ in range(2):
        with pytest.raises(ActorCancelled, match="enough"):
            await working.ask(Desk.work, 1)
        with pytest.raises(ActorCompleted):
            await queued.ask(Desk.add)
        await world.options(idempotency_key="s").start(Desk.run, "d", "begun")
        await world.restart()

    assert [type(each.exception()) for each in asked] == [ActorCancelled, ActorCompleted]


@pytest.mark.parametrize("point", CrashPoint)
async def test_a_restart_under_a_key_happens_once(make_world: MakeWorld, max_active: int, point: CrashPoint) -> None:
    world = await make_world(Desk, max_active=max_active)
    desk = await world.start(Desk.run, "d", "first")
    starter = world.options(if_exists="restart", idempotency_key="r")

    world.crash_at(point)
    with pytest.raises(CommitUncertain):
        await starter.start(Desk.run, "d", "second")
    await asyncio.gather(*(starter.start(Desk.run, "d", "second") for _ in range(3)))
    life = (await desk.info()).incarnation
    await desk.ask(Desk.add)
    await world.restart()
    await starter.start(Desk.run, "d", "second")

    assert (await desk.info()).incarnation == life
    assert await desk.query(Desk.story) == ["second", "add"]


async def test_keys_hold_for_what_actors_send_and_ask(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, Visitor, max_active=max_active)
    desk, visitors = world.ref(Desk, "d"), [world.ref(Visitor, key) for key in "ab"]
    asked = [await waiting(world, visitor.ask(Visitor.ask, desk)) for visitor in visitors]

    await send_signal(desk, Desk.go, "now")
    answers = await asyncio.gather(*asked)
    for visitor in visitors:
        await visitor.ask(Visitor.send, desk)
    await world.settled()

    assert answers == [["1 2 0 now"] * 3] * 2
    assert sorted(await desk.query(Desk.story)) == ["add", "noted", "work"]


@pytest.mark.promise("keys-outlive-their-actor")
async def test_every_way_of_calling_lets_its_key_expire(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, max_active=max_active)
    desk = await world.options(idempotency_key="start").start(Desk.run, "d", "begun")
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: send_signal(desk.options(idempotency_key="handled"), Desk.note, "noted"),
        lambda: desk.options(idempotency_key="event").send_event(Desk.add),
    ]

    for _ in range(2):
        for call in (*calls, *calls):
            await call()
        await world.settled()
        await world.advance(timedelta(days=1, seconds=2))
        await world.restart()

    assert await desk.query(Desk.story) == ["begun", *["noted", "add"] * 2]


@pytest.mark.promise("letters-come-back-once")
async def test_a_letter_sent_again_since_is_not_handled_twice(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, Visitor, max_active=max_active)
    desk, visitor = world.ref(Desk, "d"), world.ref(Visitor, "v")
    busy = [await waiting(world, desk.ask(Desk.work, 1)), *[await waiting(world, desk.ask(Desk.add)) for _ in range(3)]]
    for _ in range(2):
        await visitor.ask(Visitor.press, desk)  # finds no room
    await send_signal(desk, Desk.go, "now")
    await asyncio.gather(*busy)
    await desk.options(idempotency_key="k").send_event(Desk.add)

    counts = [await desk.redrive(), len(await world.dead_letters())]

    assert counts == [2, 0]
    assert await desk.query(Desk.story) == ["work", *["add"] * 4]


async def test_two_letters_of_one_key_are_one_message(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, Visitor, max_active=max_active)
    desk, visitor = world.ref(Desk, "d"), world.ref(Visitor, "v")
    busy = [await waiting(world, desk.ask(Desk.work, 1)), *[await waiting(world, desk.ask(Desk.add)) for _ in range(3)]]
    for _ in range(2):
        await visitor.ask(Visitor.press, desk)
    await send_signal(desk, Desk.go, "now")
    await asyncio.gather(*busy)

    await desk.redrive()
    await world.settled()

    assert await desk.query(Desk.story) == ["work", *["add"] * 4]


@pytest.mark.promise("bounds-are-kept")
async def test_a_quarantined_actor_keeps_no_more_signals_than_it_may(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Vase, max_active=max_active)
    vase = world.ref(Vase, "v")

    for _ in range(3):
        await send_signal(vase, Vase.fall)
        await world.settled()

    with pytest.raises(MailboxFull):
        await send_signal(vase, Vase.fall)


@pytest.mark.promise("bounds-are-kept")
async def test_a_buffer_of_signals_has_a_limit_in_every_life(make_world: MakeWorld, max_active: int) -> None:
    world = await make_world(Desk, max_active=max_active)
    desk = world.ref(Desk, "d")
    for number in range(3):
        await send_signal(desk, Desk.go, str(number))

    for _ in range(2):
        with pytest.raises(MailboxFull):
            await send_signal(desk, Desk.go, "no room")
        await world.restart()
    await desk.ask(Desk.work, 1)
    await send_signal(desk, Desk.go, "room")

    with pytest.raises(MailboxFull):
        await send_signal(desk, Desk.go, "no room")
