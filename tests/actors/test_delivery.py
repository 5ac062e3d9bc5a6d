"""Messages between actors: exactly once, in order, together with the turn that sent them, over every crash."""

from __future__ import annotations

import pytest
from perdure.actors import UnknownActorType, durable_actor, on_event, send_signal
from perdure.actors.testing import CrashPoint, World
from perdure.storage import CommitUncertain

from .bank import Account, Counter
from .conftest import MakeWorld

pytestmark = pytest.mark.anyio


@durable_actor
class Stranger:
    """A type that the host does not serve."""

    @on_event
    def greet(self) -> None: ...


async def total(world: World, keys: str) -> int:
    return sum([await world.ref(Account, key).query(Account.total) for key in keys])


@pytest.mark.promise("order-per-sender-and-lane")
async def test_what_one_account_gives_another_gets(make_world: MakeWorld) -> None:
    world = await make_world(Account)
    ada, bob = world.ref(Account, "ada"), world.ref(Account, "bob")
    await ada.ask(Account.deposit, 100)

    for cents in (10, 20, 30):
        await ada.send_event(Account.transfer, bob, cents)
    await world.settled()

    assert await bob.query(Account.received_from, "ada") == [10, 20, 30]


@pytest.mark.promise("exactly-once-state", "atomic-turns", "messages-exactly-once")
@pytest.mark.parametrize("point", CrashPoint)
@pytest.mark.parametrize("nth", range(1, 6))
async def test_money_is_conserved_over_a_crash_at_any_commit(make_world: MakeWorld, point: CrashPoint, nth: int) -> None:
    world = await make_world(Account)
    for key in "abcd":
        await world.ref(Account, key).ask(Account.deposit, 100)

    world.crash_at(point, nth)
    for giver, taker in ("ab", "bc", "cd", "da", "ac"):
        try:
            await world.ref(Account, giver).ask(Account.transfer, world.ref(Account, taker), 50)
        except CommitUncertain:
            continue
    await world.run_until_idle()

    assert world.store.crashes == 1
    assert await total(world, "abcd") == 400


@pytest.mark.promise("acknowledged-is-kept")
async def test_a_message_that_was_acknowledged_is_handled_after_a_crash(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")

    world.crash_at(CrashPoint.AFTER_COMMIT)
    with pytest.raises(CommitUncertain):
        await counter.send_event(Counter.add, 3)
    await world.settled()

    assert await counter.query(Counter.value) == 3


@pytest.mark.promise("acknowledged-is-kept")
async def test_what_was_not_durable_is_gone_after_a_restart(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.ask(Counter.add, 1)

    world.crash_at(CrashPoint.BEFORE_COMMIT)
    with pytest.raises(CommitUncertain):
        await counter.ask(Counter.add, 1)

    assert await counter.query(Counter.value) == 1


async def test_a_chain_of_a_thousand_hops_takes_few_commits(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    before = world.store.commits

    await world.ref(Counter, "start").ask(Counter.hop, 1000)
    await world.settled()

    assert await world.ref(Counter, "hop-1").query(Counter.value) == 1
    assert world.store.commits - before <= 40  # ten of them on a quiet machine: benchmarks/turns.py


@pytest.mark.promise("signals-overtake-events")
async def test_a_signal_overtakes_events_that_wait(make_world: MakeWorld) -> None:
    world = await make_world(Counter)
    counter = world.ref(Counter, "a")
    await counter.send_event(Counter.fail_after_adding, 1)

    await send_signal(counter, Counter.note, "now")

    info = await counter.info()
    assert await counter.query(Counter.all_notes) == ["now"]
    assert (info.events, info.attempts) == (1, 1)


async def test_a_type_that_is_not_hosted_is_refused_at_the_call(make_world: MakeWorld) -> None:
    world = await make_world(Counter)

    with pytest.raises(UnknownActorType, match="There is: Counter"):
        world.ref(Stranger, "a")
