"""However a host ends, whoever waits for something of it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from perdure.actors import ActorRef, Runtime, RuntimeNotRunning
from perdure.actors import _host as host_module
from perdure.actors.testing import CrashPoint, UnsteadyStore, World
from perdure.storage import CommitUncertain, MemoryStore

from .bank import Counter
from .conftest import MakeWorld

pytestmark = [pytest.mark.anyio, pytest.mark.promise("nobody-waits-in-vain")]

Effect = Callable[[World, ActorRef[Counter]], Awaitable[object]]

EFFECTS: dict[str, Effect] = {
    "a reply": lambda world, counter: counter.ask(Counter.add, 1),
    "an acknowledgement": lambda world, counter: counter.send_event(Counter.add, 1),
    "a query": lambda world, counter: counter.query(Counter.value),
    "an info": lambda world, counter: counter.info(),
    "a deletion": lambda world, counter: counter.delete(),
    "quiet": lambda world, counter: world.runtime.settled(),
}


@pytest.mark.parametrize("effect", EFFECTS)
async def test_an_abrupt_end_is_told_to_whoever_waits_for_the_disk(make_world: MakeWorld, effect: str) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    with world.slow_disk():
        changed = asyncio.ensure_future(counter.ask(Counter.add, 1))
        await passes_by()
        told = asyncio.ensure_future(EFFECTS[effect](world, counter))
        await passes_by()
        world.runtime.abort()
        await passes_by()
    async with asyncio.timeout(5):
        await asyncio.wait([changed, told])
    await world.restart()

    assert isinstance(changed.exception(), CommitUncertain)
    assert isinstance(told.exception(), (CommitUncertain, RuntimeNotRunning))


async def test_a_stop_beside_a_stuck_disk_is_told_to_whoever_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "DRAIN_WITHIN", 0.1)
    store = UnsteadyStore(MemoryStore())

    async with Runtime(store, [Counter]) as runtime:
        store.hold()
        sent = asyncio.ensure_future(runtime.ref(Counter, "a").send_event(Counter.add, 1))
        await passes_by()

    with pytest.raises(CommitUncertain):
        await asyncio.wait_for(sent, 5)


async def test_quiet_is_not_waited_for_in_an_epoch_that_has_ended(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    world.crash_at(CrashPoint.BEFORE_COMMIT)
    sent = asyncio.ensure_future(world.ref(Counter, "a").send_event(Counter.hop, 100))

    async with asyncio.timeout(5):
        quiet = await asyncio.gather(world.runtime.settled(), sent, return_exceptions=True)

    assert isinstance(quiet[1], CommitUncertain)
    await world.settled()


async def passes_by() -> None:
    """Enough rounds of the loop for everything that could happen without the disk."""
    for _ in range(50):
        await asyncio.sleep(0)
