"""A host that starts reads only what has work to do, and an actor that is not in memory has lost nothing."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from perdure.actors import Runtime, RuntimeNotRunning, current_actor, durable_actor, on_event, query
from perdure.actors.testing import World
from perdure.storage import StoreLocked

from .bank import Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Ledger:
    """Holds up its mailbox once."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    @on_event
    def fail_first(self) -> None:
        if current_actor().attempt == 1:
            raise RuntimeError("not yet")

    @on_event
    def enter(self, number: int) -> None:
        self.numbers.append(number)

    @query
    def entries(self) -> list[int]:
        return self.numbers


async def test_a_start_activates_only_actors_with_messages(make_world: MakeWorld) -> None:
    world = await make_world(Counter, max_active=10_000)
    for number in range(50):
        await world.ref(Counter, str(number)).ask(Counter.add, 1)
    await world.ref(Counter, "busy").send_event(Counter.fail_after_adding, 1)

    await world.restart()
    await world.settled()

    assert world.runtime.statistics().activations == 1
    assert (await world.ref(Counter, "busy").info()).attempts == 1


@pytest.mark.promise("order-per-sender-and-lane")
async def test_a_long_mailbox_is_handled_in_order_after_a_restart(make_world: MakeWorld) -> None:
    world = await make_world(Ledger)
    ledger = world.ref(Ledger, "a")
    await ledger.send_event(Ledger.fail_first)
    await asyncio.gather(*(ledger.send_event(Ledger.enter, number) for number in range(1500)))
    assert (await ledger.info()).events == 1501

    await world.restart()
    await ledger.send_event(Ledger.enter, 1500)
    await world.run_until_idle()

    assert await ledger.query(Ledger.entries) == list(range(1501))


async def test_many_mailboxes_are_taken_up_though_nothing_else_happens(make_world: MakeWorld) -> None:
    world = await make_world(Ledger, max_active=10_000)
    ledgers = [world.ref(Ledger, str(number)) for number in range(1_500)]
    await asyncio.gather(*(ledger.send_event(Ledger.fail_first) for ledger in ledgers))
    await asyncio.gather(*(ledger.send_event(Ledger.enter, 1) for ledger in ledgers))
    world.clock.move_to(world.clock.now() + 10)

    await world.restart()
    with world.slow_disk():
        while world.runtime.statistics().turns <= 500:  # noqa: ASYNC110  in so much real time as it takes
            await asyncio.sleep(0.001)
    with anyio.fail_after(10):
        await world.runtime.settled()

    assert world.runtime.statistics().backlog == 0


@pytest.mark.promise("leaving-memory-changes-nothing")
async def test_few_actors_in_memory_serve_many(make_world: MakeWorld) -> None:
    world = await make_world(Counter, max_active=3)
    counters = [world.ref(Counter, str(number)) for number in range(40)]

    for _ in range(3):
        await asyncio.gather(*(counter.ask(Counter.add, 1) for counter in counters))

    assert [await counter.query(Counter.value) for counter in counters] == [3] * 40
    assert world.runtime.statistics().active <= 3 + 8
    assert world.runtime.statistics().passivations > 0


async def test_leaving_the_runtime_finishes_what_was_sent(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"lmdb:{tmp_path_factory.mktemp('store')}/store"
    async with Runtime(url, [Counter]) as runtime:
        for _ in range(100):
            await runtime.ref(Counter, "a").send_event(Counter.add, 1)

    async with Runtime(url, [Counter]) as runtime:
        assert await runtime.ref(Counter, "a").query(Counter.value) == 100


@pytest.mark.promise("one-host-per-store")
async def test_a_second_host_on_a_store_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = f"lmdb:{tmp_path_factory.mktemp('store')}/store"

    async with Runtime(url, [Counter]) as runtime:
        with pytest.raises(StoreLocked, match="hosts this store already"):
            await Runtime(url, [Counter]).__aenter__()
        assert await runtime.ref(Counter, "a").ask(Counter.add, 1) == 1


async def test_a_reference_to_an_ended_runtime_says_so() -> None:
    async with Runtime("memory:", [Counter]) as runtime:
        counter = runtime.ref(Counter, "a")

    with pytest.raises(RuntimeNotRunning, match="async with Runtime"):
        await counter.ask(Counter.add, 1)


async def test_an_error_in_the_body_comes_out_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Runtime("memory:", [Counter]):
            _ = 1 // 0


async def test_a_world_with_the_same_seed_makes_the_same_ids() -> None:
    incarnations = []
    for _ in range(2):
        async with World([Counter], seed=7) as world:
            await world.ref(Counter, "a").ask(Counter.add, 1)
            incarnations.append((await world.ref(Counter, "a").info()).incarnation)

    assert incarnations[0] == incarnations[1]
