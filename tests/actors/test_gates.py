"""Nothing leaves the host before its cause is durable: with a disk that is stuck, nobody learns anything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from perdure.actors import ActorRef, DeadLetterInfo, durable_actor, on_event, on_signal, send_signal
from perdure.actors.testing import World

from .bank import Account, Counter
from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("nothing-leaves-before-durable")]

Effect = Callable[[World, ActorRef[Counter]], Awaitable[object]]


@durable_actor
class Fussy:
    """Cannot handle a signal."""

    @on_event
    def accept(self) -> None: ...

    @on_signal
    def refuse(self) -> None:
        raise LookupError


async def first_in_list(world: World, counter: ActorRef[Counter]) -> object:
    return await anext(world.actors(Counter))


async def repetition(world: World, counter: ActorRef[Counter]) -> object:
    first = asyncio.ensure_future(counter.options(idempotency_key="new").ask(Counter.add, 0))
    await passes_by()
    try:
        return await counter.options(idempotency_key="new").ask(Counter.add, 0)
    finally:
        await first


EFFECTS: dict[str, Effect] = {
    "a reply": lambda world, counter: counter.ask(Counter.add, 1),
    "an error": lambda world, counter: counter.ask(Counter.fail_after_adding, 1),
    "an acknowledgement": lambda world, counter: counter.send_event(Counter.add, 1),
    "a signal's acknowledgement": lambda world, counter: send_signal(counter, Counter.note, "x"),
    "a declared signal's acknowledgement": lambda world, counter: send_signal(counter, Counter.renamed, "x"),
    "a query": lambda world, counter: counter.query(Counter.value),
    "an info": lambda world, counter: counter.info(),
    "a list": first_in_list,
    "a deletion": lambda world, counter: counter.delete(),
    "a reply recorded just now": repetition,
    "a recorded reply": lambda world, counter: counter.options(idempotency_key="k").ask(Counter.add, 7),
}


@pytest.mark.parametrize("effect", EFFECTS)
async def test_nothing_leaves_before_its_cause_is_durable(make_world: MakeWorld, effect: str) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.options(idempotency_key="k").ask(Counter.add, 7)

    with world.slow_disk():
        changed = asyncio.ensure_future(counter.ask(Counter.add, 1))
        await passes_by()
        told = asyncio.ensure_future(EFFECTS[effect](world, counter))
        await passes_by()
        early = told.done()
    await asyncio.wait([changed, told])

    assert not early
    assert await changed == 8
    told.exception()


@pytest.mark.promise("one-line-of-batches", "linearizable")
async def test_a_chain_runs_ahead_of_the_disk_and_is_heard_behind_it(make_world: MakeWorld) -> None:
    world = await make_world(Account)
    ada, bob = world.ref(Account, "ada"), world.ref(Account, "bob")

    with world.slow_disk():
        deposit = asyncio.ensure_future(ada.ask(Account.deposit, 5))
        transfer = asyncio.ensure_future(ada.ask(Account.transfer, bob, 5))
        await passes_by()
        heard = asyncio.ensure_future(bob.query(Account.total))
        await passes_by()
        early = [future.done() for future in (deposit, transfer, heard)]

    assert early == [False] * 3
    assert [await deposit, await transfer, await heard] == [5, 0, 5]


async def test_the_dead_letter_hook_is_called_when_the_letter_is_durable(make_world: MakeWorld) -> None:
    letters: list[DeadLetterInfo] = []
    world = await make_world(Counter, on_dead_letter=letters.append)
    await world.ref(Counter, "a").send_event(Counter.fail_after_adding, 1)

    await world.run_until_idle()

    assert [(letter.actor.key, letter.failed) for letter in letters] == [("a", 3)]


async def test_a_list_of_dead_letters_holds_only_durable_ones(make_world: MakeWorld) -> None:
    world = await make_world(Fussy)
    fussy = world.ref(Fussy, "a")

    with world.slow_disk():
        accepted = asyncio.ensure_future(fussy.send_event(Fussy.accept))
        await passes_by()
        listed = asyncio.ensure_future(world.dead_letters())
        refused = asyncio.ensure_future(send_signal(fussy, Fussy.refuse))
        await passes_by()
        await let_one_commit_through(world)
        early = listed.result() if listed.done() else []
    await asyncio.gather(accepted, listed, refused)

    assert early == []
    assert len(await world.dead_letters()) == 1


async def let_one_commit_through(world: World) -> None:
    world.store.flow()
    await asyncio.sleep(0)
    world.store.hold()
    await asyncio.sleep(0.05)


async def passes_by() -> None:
    """Enough rounds of the loop for everything that could happen without the disk."""
    for _ in range(50):
        await asyncio.sleep(0)
